/* api_signing.mjs - who may call the HTTP API: the signature, its parts, the order of its checks.
 *
 * Source   spec/pusher-v1.md 7.1, 7.2; spec/settled.md 19.
 */
import { suite } from '../runner.mjs';
import { assert, is_api_error, is_ok } from '../expect.mjs';
import { hmac, md5, request, signedQuery } from '../http_raw.mjs';
import { Sdk } from '../clients.mjs';
import { app_entry } from '../apps.mjs';

const s = suite('api signing', { shared: true });
const body = { name: 'ev', data: 'x', channel: 'room' };
const now = () => Math.floor(Date.now() / 1000);
const post = (t, sign = {}, more = {}) =>
  t.api(t.apps.main, 'POST', '/events', { body, sign, ...more });

s.test('the published vectors', async () => {
  const text = '{"name":"ev","channels":["room"],"data":"{\\"a\\":1}"}';
  assert.equal(md5(text), '9792596ba62e112049430c145b4c75e9');
  const app = { key: 'key-abc', secret: 'secret-xyz' };
  const query = { auth_timestamp: '1700000000' };
  assert.match(signedQuery(app, 'POST', '/apps/42/events', query, text),
               /auth_signature=b2eadead3beb4b6e64613877a3302dd44bb26aef332c4e70f85e01bd6cf461f9$/);
  assert.match(signedQuery(app, 'GET', '/apps/42/channels',
                           { ...query, filter_by_prefix: 'presence-', info: 'user_count' }),
               /auth_signature=35df8d4b9e093821cba0738a58a2b7ea9831f43a42c271efc2677599078f7c91$/);
});

s.test('a right signature', async (t) => {
  is_ok(await post(t), { ok: true });
  is_ok(await t.api(t.apps.main, 'GET', '/channels', { query: { filter_by_prefix: 'none-such-' } }),
        { channels: {} });
});

const fails = {
  'no query': [{ raw: '' }, 400, 'invalid_input', 'Missing authentication query parameters'],
  'an undecodable query': [{ raw: 'auth_key=%zz' }, 400, 'invalid_input',
                           /^Invalid authentication query parameters: /],
  'an unknown key': [{ key: 'nobody' }, 404, 'app_not_found',
                     'Application key not found or invalid: Invalid app key'],
  'no key': [{ query: { auth_key: undefined } }, 404, 'app_not_found',
             'Application key not found or invalid: Invalid app key'],
  'the key of another app': [{ key: 'other-key', secret: 'other-secret' }, 401, 'auth_failed',
                             'Authenticated app does not match route app_id'],
  'no timestamp': [{ query: { auth_timestamp: undefined } }, 401, 'auth_failed',
                   'auth_timestamp is missing'],
  'a timestamp that is no integer': [{ query: { auth_timestamp: 'soon' } }, 401, 'auth_failed',
                                     'Invalid auth_timestamp format'],
  'a fractional timestamp': [{ query: { auth_timestamp: '1.5' } }, 401, 'auth_failed',
                             'Invalid auth_timestamp format'],
  'a wrong body_md5': [{ query: { body_md5: md5('other') } }, 401, 'auth_failed',
                       'body_md5 mismatch'],
  'no body_md5': [{ query: { body_md5: undefined } }, 401, 'auth_failed', 'body_md5 is required '
    + 'and must be non-empty in query parameters for POST requests with a non-empty body'],
  'an empty body_md5': [{ query: { body_md5: '' } }, 401, 'auth_failed', 'body_md5 is required '
    + 'and must be non-empty in query parameters for POST requests with a non-empty body'],
  'a wrong secret': [{ secret: 'wrong' }, 401, 'auth_failed', 'Invalid API signature'],
  'no signature': [{ query: { auth_signature: '' } }, 401, 'auth_failed', /./],
  'a signature in upper case': [{ query: { auth_signature: 'A'.repeat(64) } }, 401, 'auth_failed',
                                'Invalid API signature'],
  'a signature of another path': [{ path: '/apps/main-id/batch_events' }, 401, 'auth_failed',
                                  'Invalid API signature'],
};
for (const [what, [sign, status, code, text]] of Object.entries(fails)) {
  s.test(`${what}: ${status}`, async (t) => is_api_error(await post(t, sign), status, code, text));
}

for (const offset of [601, 700, -601, -100000]) {
  s.test(`a clock that is ${offset} s off`, async (t) => {
    is_api_error(await post(t, { query: { auth_timestamp: String(now() + offset) } }), 401,
                 'auth_failed', 'Timestamp expired or too far in the future');
  });
}
for (const offset of [595, -595, 0]) {
  s.test(`a clock that is ${offset} s off is accepted`, async (t) => {
    is_ok(await post(t, { query: { auth_timestamp: String(now() + offset) } }));
  });
}

s.test('body_md5 on a GET: that of the empty body, as the Python SDK sends it', async (t) => {
  const get = (body_md5) => t.api(t.apps.main, 'GET', '/channels/some', { query: { body_md5 } });
  is_ok(await get(md5('')), { occupied: false });
  for (const wrong of [md5('x'), '']) {
    is_api_error(await get(wrong), 401, 'auth_failed',
                 'body_md5 must not be present in query parameters for GET requests');
  }
});
s.test('an auth parameter given twice', async (t) => {
  const q = signedQuery(t.apps.main, 'GET', '/apps/main-id/channels');
  for (const more of ['auth_key=main-key', 'auth_signature=x', `auth_timestamp=${now()}`]) {
    const r = await t.get(`/apps/main-id/channels?${q}&${more}`);
    is_api_error(r, 400, 'invalid_input', /^Invalid authentication query parameters: /);
  }
});
s.test('another parameter given twice: the last value counts', async (t) => {
  const auth = { auth_key: 'main-key', auth_timestamp: String(now()), auth_version: '1.0' };
  const text = Object.entries({ ...auth, filter_by_prefix: 'two-' }).sort()
    .map(([k, v]) => `${k}=${v}`).join('&');
  const signature = hmac('main-secret', `GET\n/apps/main-id/channels\n${text}`);
  const r = await t.get(`/apps/main-id/channels?${new URLSearchParams(auth)}`
    + `&filter_by_prefix=one-&filter_by_prefix=two-&auth_signature=${signature}`);
  is_ok(r, { channels: {} });
});
s.test('parameter names have no case, values are form-decoded before signing', async (t) => {
  const text = `auth_key=main-key&auth_timestamp=${now()}&auth_version=1.0&filter_by_prefix=a b+ü`;
  const signature = hmac('main-secret', `GET\n/apps/main-id/channels\n${text}`);
  const r = await t.get(`/apps/main-id/channels?AUTH_KEY=main-key&Auth_Timestamp=${now()}`
    + `&auth_version=1.0&filter_by_prefix=a+b%2B%C3%BC&auth_signature=${signature}`);
  is_ok(r, { channels: {} });
});
s.test('auth_version is not checked', async (t) => {
  is_ok(await post(t, { query: { auth_version: '9' } }));
  is_ok(await post(t, { query: { auth_version: undefined } }));
});
s.test('a trailing slash is signed away', async (t) => {
  const q = signedQuery(t.apps.main, 'GET', '/apps/main-id/channels');
  is_ok(await t.get(`/apps/main-id/channels/?${q}`));
});
s.test('a path signed encoded or decoded', async (t) => {
  const path = '/apps/main-id/users/a b/terminate_connections';
  for (const signed of [path, path.replace(' ', '%20')]) {
    const q = signedQuery(t.apps.main, 'POST', signed, {}, '{}');
    const r = await request(t.port, 'POST', `${path.replace(' ', '%20')}?${q}`,
                            { body: '{}', headers: { 'Content-Type': 'application/json' } });
    is_ok(r, { ok: true });
  }
});
s.test('an empty POST body with and without body_md5', async (t) => {
  const path = '/users/nobody/terminate_connections';
  is_ok(await t.api(t.apps.main, 'POST', path, { query: { body_md5: undefined } }));
  is_ok(await t.api(t.apps.main, 'POST', path, { query: { body_md5: md5('') } }));
});
s.test('body_md5 in upper case is wrong', async (t) => {
  const r = await post(t, { query: { body_md5: md5(JSON.stringify(body)).toUpperCase() } });
  assert.equal(r.status, 401, r.text);
});

s.test('the checks keep their order', async (t) => {
  const steps = [
    [{ key: 'nobody', query: { auth_timestamp: undefined } }, 404],
    [{ key: 'other-key', secret: 'x', query: { auth_timestamp: 'x' } }, 401,
      /route app_id|timestamp/],
    [{ secret: 'x', query: { auth_timestamp: '5', body_md5: 'x' } }, 401, /^Timestamp/],
    [{ secret: 'x', query: { body_md5: 'x' } }, 401, 'body_md5 mismatch'],
    [{ secret: 'x' }, 401, 'Invalid API signature'],
  ];
  for (const [sign, status, text] of steps) {
    const r = await t.api(t.apps.main, 'POST', '/events', { body: '{', sign });
    assert.equal(r.status, status, r.text);
    if (text instanceof RegExp) assert.match(r.json.error, text);
    else if (text) assert.equal(r.json.error, text);
  }
  assert.equal((await t.api(t.apps.main, 'POST', '/events', { body: '{' })).status, 400);
});

s.test('a disabled app is refused', async (t) => {
  const r = await t.api(t.apps.disabled, 'GET', '/channels');
  assert.equal(r.status, 403, r.text);
});
s.test('an unknown app in the path', async (t) => {
  const q = signedQuery(t.apps.main, 'GET', '/apps/nobody/channels');
  is_api_error(await t.get(`/apps/nobody/channels?${q}`), 401, 'auth_failed',
               'Authenticated app does not match route app_id');
});
s.test('the SDK: right and wrong secrets', async (t) => {
  assert.equal((await t.sdk().trigger(t.name(), 'ev', { a: 1 })).status, 200);
  const wrong = new Sdk({ appId: 'main-id', key: 'main-key', secret: 'no', host: '127.0.0.1',
                          port: t.port });
  await assert.rejects(wrong.trigger(t.name(), 'ev', {}), (e) => e.status === 401
    && JSON.parse(e.body).error === 'Invalid API signature');
});

/* Keys and secrets are compared whole. */
const odd = app_entry('odd', {}, { key: 'k', secret: 's'.repeat(200) });
const oddities = suite('api odd keys', { config: { app_manager: { array: { apps: [odd] } } } });
oddities.test('a one-byte key and a 200-byte secret', async (t) => {
  is_ok(await t.api(odd, 'POST', '/events', { body }), { ok: true });
  is_api_error(await t.api(odd, 'POST', '/events', { body, sign: { secret: 's'.repeat(199) } }),
    401,
               'auth_failed', 'Invalid API signature');
  is_api_error(await t.api(odd, 'POST', '/events', { body, sign: { key: 'kk' } }), 404,
               'app_not_found', /./);
});
