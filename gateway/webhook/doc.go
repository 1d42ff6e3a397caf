// Package webhook delivers events by HTTP POST: as CloudEvents, signed per
// Standard Webhooks, to addresses that are allowed, within bounds.
//
//	hook, err := webhook.New(webhook.Config{
//		URL:     "https://partner.example/hooks",
//		Secrets: []string{os.Getenv("WEBHOOK_SECRET")},
//	})
//	gw, err := gateway.New(store, "partner", gateway.Config{Start: jetstream.FromNow()},
//		gateway.OnAll(account.Events, hook.Deliver))
//
// # What is sent
//
// One event is one CloudEvent (https://cloudevents.io, version 1.0), in the
// structured mode, a JSON document, or the binary mode, attributes in headers and
// the event's JSON as the body: see [Config.Mode] and docs/webhooks.md.
//
// The headers webhook-id, webhook-timestamp and webhook-signature are those of
// Standard Webhooks (https://www.standardwebhooks.com). The id is the delivery's
// idempotency key, the same on every attempt; Idempotency-Key repeats it.
//
// # What the answers mean
//
// 2xx is delivered. Codes that speak of this message, such as 400 and 422, are
// permanent: the event is parked. All others are tried again, not earlier than
// Retry-After says; redirects are not followed and are among them.
// [Config.Permanent] says otherwise. No answer, or half of one, leaves it unknown
// whether the receiver had it: it is sent again under the same id.
//
// # Where to
//
// Addresses that are private, on this machine or otherwise not of the public
// internet are refused when a connection is dialled, after names were resolved, so
// no DNS answer leads inside: see [Config.AllowNetworks].
//
// # Receiving
//
// [Receiver] verifies such requests; it works with any sender of Standard
// Webhooks.
package webhook
