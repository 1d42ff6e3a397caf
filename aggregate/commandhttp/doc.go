// Package commandhttp lets HTTP clients command aggregates. [New] makes a handler
// for net/http out of targets: repositories in this process, or clients of command
// services elsewhere.
//
//	h, err := commandhttp.New(commandhttp.Config{Targets: []aggregate.Target{accounts}})
//	mux.Handle("/commands/", http.StripPrefix("/commands", h))
//
//	curl -i http://localhost:8080/commands/account/a1/debit \
//		-H 'Content-Type: application/json' -H 'Idempotency-Key: "8e03978e"' -H 'If-Match: "7"' \
//		-d '{"cents":5}'
//
// # Requests
//
// POST /{type}/{id}/{command} executes a command on an aggregate, POST
// /{type}/{command} one that makes an aggregate without saying which id it gets. The
// body is the command, as JSON or msgpack. GET /openapi.json describes all of it.
//
//   - Idempotency-Key: sent again with it, the command gets its first outcome.
//   - Rossby-Record-Rejections: true, for who sends a command again because its outcome
//     is unknown: a refusal is then final.
//   - If-Match: the version that the aggregate must have, else 412.
//   - If-None-Match: *, for a command that makes an aggregate: 412 instead of 409
//     when there is one.
//   - Prefer: return=minimal for an answer without a body, wait=<seconds> for how
//     long the caller waits at most.
//   - Rossby-Correlation, Rossby-Causation and traceparent go along with the events.
//
// # Answers
//
// ETag is the aggregate's version after the command, Rossby-Position where that
// stands in the store: a view that has reached it shows what the command did. A
// repetition says Idempotent-Replayed: true. What goes wrong is a problem as in RFC
// 9457; docs/http.md lists them.
//
// Who may send which command is for handlers around this one to decide; what they
// found out about the caller reaches the events through [Config].Options. So is
// protection from other sites' pages, such as http.CrossOriginProtection.
package commandhttp
