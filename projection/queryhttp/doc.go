// Package queryhttp lets HTTP clients read a view. [New] makes a handler for
// net/http out of a [projection.Reader].
//
//	h, err := queryhttp.New(accounts, queryhttp.Config{})
//	mux.Handle("/accounts/", http.StripPrefix("/accounts", h))
//	server.RegisterOnShutdown(h.Close)
//
//	curl -i http://localhost:8080/accounts/a1 -H 'If-None-Match: "1-4k-2m"'
//	curl -i 'http://localhost:8080/accounts/a1?after=jilgrmgjjptkm-1g' -H 'Prefer: wait=2'
//	curl -i 'http://localhost:8080/accounts/?prefix=a&limit=10'
//	curl -i 'http://localhost:8080/accounts/?index=owner&value=ann'
//	curl -N http://localhost:8080/accounts/ -H 'Accept: text/event-stream'
//
// # Requests
//
// GET /{key} answers with the value, as JSON. Everything after the handler's place is
// the key, slashes too. GET / lists entries in the order of their last change, page
// by page; with ?key=, as often as needed, it answers with these keys as they stood
// together at one moment; with ?index=, with what [projection.Reader.Find] finds for
// value, or prefix, from and before, and reverse.
//
//   - after, in the query, is the position that the view must have reached, such as
//     the Rossby-Position of the caller's own command.
//   - Prefer: wait=<seconds> is how long the caller waits for that at most.
//   - If-None-Match: 304 when the value, or the page's entries, are still the same.
//   - Accept: text/event-stream watches the key, or all keys under ?prefix=.
//     Last-Event-ID goes on after an event, also at another instance.
//
// # Answers
//
// ETag changes with the value; Rossby-Position is how far the view was. What goes
// wrong is a problem as in RFC 9457; docs/queries.md lists them.
//
// Who may read what is for handlers around this one to decide.
package queryhttp
