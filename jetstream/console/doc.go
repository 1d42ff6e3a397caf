// Package console is a web page that shows a store at work, and lets people act on
// it where the application allows that. It is one [http.Handler] to mount anywhere:
//
//	con, err := console.New(console.Config{Store: store})
//	mux.Handle("/console/", http.StripPrefix("/console", con))
//
// The page is part of the program: plain HTML, CSS and JavaScript, nothing from
// elsewhere. It finds out by itself what there is: command services and the JSON
// Schemas of their commands, aggregates and their events, followers, views,
// gateways, deadlines and sagas. It needs no leave but that of its connection.
//
// # Reading and acting
//
// A console reads, unless [Config.Actions] is set. It knows no users: put it behind
// a handler that does, and let [Config.Authorize] decide about each request.
// Requests that a browser sends for another site's page are refused.
//
// # States
//
// The console shows events without knowing their types. States that travel in the
// commits it shows, too; for all others, and for versions within a commit, give it
// a repository: [StateOf].
//
// # Bounds
//
// Every answer is a page of bounded size, however large the store is. Pages listen
// to one stream of server-sent events each, which skips what a slow page does not
// take. While nobody looks, nothing is asked of the servers.
//
// docs/console.md describes the JSON behind the page.
package console
