/* apps.mjs - the applications of the shared server, one for each kind of setting.
 *
 * Shape    apps: the applications by name; app_entry() makes one for other servers; shared_config:
 *          the configuration of the shared server.
 * Source   Key names: spec/operations.md 4; meanings: spec/pusher-v1.md 9, spec/settled.md 11, 12.
 */
export function app_entry(name, policy = {}, more = {}) {
  return { id: `${name}-id`, key: `${name}-key`, secret: `${name}-secret`, ...more, policy };
}

const everything = {
  enable_client_messages: true, enable_user_authentication: true, enable_watchlist_events: true,
};

export const apps = {
  main: app_entry('main', { features: everything }),
  other: app_entry('other', { features: everything }),
  bare: app_entry('bare'),
  nowatch: app_entry('nowatch', { features: { enable_user_authentication: true } }),
  disabled: app_entry('disabled', {}, { enabled: false }),
  origins: app_entry('origins', { channels: { allowed_origins: [
    'https://exact.test', 'plain.test', '*.wild.test', 'http://pre*.test', 'ported.test:8080'] } }),
  anyorigin: app_entry('anyorigin', { channels: { allowed_origins: ['any'] } }),
  quota: app_entry('quota', { limits: { max_connections: 2 } }),
  quota2: app_entry('quota2', { limits: { max_connections: 3 } }),
  rate: app_entry('rate', { features: everything,
                            limits: { max_client_events_per_second: 3, decay_seconds: 2 } }),
  rateend: app_entry('rateend', { features: everything,
    limits: { max_client_events_per_second: 2, decay_seconds: 30, terminate_on_limit: true } }),
  inbound: app_entry('inbound', { features: everything, limits: { message_rate_limit:
    { enabled: true, max_attempts: 5, decay_seconds: 2, terminate_on_limit: false } } }),
  inboundend: app_entry('inboundend', { features: everything, limits: { message_rate_limit:
    { enabled: true, max_attempts: 3, decay_seconds: 30, terminate_on_limit: true } } }),
  limits: app_entry('limits', { features: everything, limits: {
    max_presence_members_per_channel: 2, max_presence_member_size_in_kb: 1,
    max_channel_name_length: 40, max_event_name_length: 20, max_event_payload_in_kb: 1,
    max_event_channels_at_once: 3, max_event_batch_size: 2 } }),
  counts: app_entry('counts', { features: { ...everything, enable_subscription_count: true } }),
  idem: app_entry('idem', { idempotency: { enabled: true, ttl_seconds: 1 } }),
  noidem: app_entry('noidem', { idempotency: { enabled: false } }),
  backend: app_entry('backend', { limits: { max_backend_events_per_second: 3 } }),
  reads: app_entry('reads', { limits: { max_read_requests_per_second: 3 } }),
};

export const shared_config = {
  websocket_max_payload_kb: 256,
  channel_limits: { cache_ttl: 3600 },
  app_manager: { array: { apps: Object.values(apps) } },
};
