// Package todo is a to-do list. Read its files in this order:
//
//   - events.go: what can happen to a to-do
//   - todo.go: the commands, and what they decide
//   - view.go: the list as it is read
//   - bulk.go: many to-dos deleted at once, by a reactor
//   - serve.go: everything put together, over HTTP
package todo

import "github.com/rossby-go/rossby/jetstream"

// What happened to a to-do.
type (
	Added     struct{ Title string }
	Renamed   struct{ Title string }
	Completed struct{}
	Deleted   struct{}
)

// Events are the events of a to-do, under the names that they are stored with.
var Events = jetstream.NewSchema("todo",
	jetstream.Event[Added]("added"),
	jetstream.Event[Renamed]("renamed"),
	jetstream.Event[Completed]("completed"),
	jetstream.Event[Deleted]("deleted"),
)
