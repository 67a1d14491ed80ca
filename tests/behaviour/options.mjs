/* options.mjs - the command line of a script. --help prints the comment at its head; an option that
 * is not known, or a number that is none, ends it with one line and exit code 2. */
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

function refuse(file, text) {
  console.error(`${path.basename(file)}: ${text} (--help says what there is)`);
  process.exit(2);
}

/* options: as parseArgs takes them; a string with `number: true` comes back as a whole number. */
export function options_of(url, options) {
  const file = fileURLToPath(url);
  const named = { ...options, help: { type: 'boolean', default: false } };
  let values;
  try {
    ({ values } = parseArgs({ options: named }));
  } catch (e) {
    refuse(file, e.message.split('\n')[0]);
  }
  if (values.help) {
    const [head] = fs.readFileSync(file, 'utf8').match(/(?<=^\/\* )[^]*?(?= *\*\/)/);
    console.log(head.replace(/^ \* ?/gm, '').trimEnd());
    process.exit(0);
  }
  for (const name of Object.keys(options).filter((n) => options[n].number)) {
    if (!/^\d+$/.test(values[name])) refuse(file, `--${name} wants a number`);
    values[name] = Number(values[name]);
  }
  return values;
}
