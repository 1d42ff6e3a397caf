package todo

import (
	"strings"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/jetstream"
)

// A Todo is the state of a to-do: what its commands have to know.
type Todo struct {
	Title         string
	Done, Deleted bool
}

// The commands.
type (
	Add      struct{ Title string }
	Rename   struct{ Title string }
	Complete struct{}
	Delete   struct{}
)

// Type says what events do to a to-do, and what its commands decide.
var Type = aggregate.New[Todo](Events,
	aggregate.Apply(func(t *Todo, e Added, _ jetstream.Meta) { t.Title = e.Title }),
	aggregate.Apply(func(t *Todo, e Renamed, _ jetstream.Meta) { t.Title = e.Title }),
	aggregate.Apply(func(t *Todo, _ Completed, _ jetstream.Meta) { t.Done = true }),
	aggregate.Apply(func(t *Todo, _ Deleted, _ jetstream.Meta) { t.Deleted = true }),

	aggregate.Create("add", add),
	aggregate.Handle("rename", rename),
	aggregate.Handle("complete", complete),
	aggregate.Handle("delete", remove),
)

func add(c Add, _ aggregate.Decision) ([]any, error) {
	title := strings.TrimSpace(c.Title)
	if title == "" {
		return nil, aggregate.Reject("no-title", "a to-do needs a title")
	}
	return []any{Added{Title: title}}, nil
}

// rename has the three answers of a command: a refusal, nothing to do, an event.
func rename(t Todo, c Rename, _ aggregate.Decision) ([]any, error) {
	title := strings.TrimSpace(c.Title)
	switch {
	case t.Deleted:
		return nil, aggregate.Reject("deleted", "the to-do is deleted")
	case title == "":
		return nil, aggregate.Reject("no-title", "a to-do needs a title")
	case title == t.Title:
		return nil, nil // it is called that already: nothing happens, nothing is stored
	}
	return []any{Renamed{Title: title}}, nil
}

func complete(t Todo, _ Complete, _ aggregate.Decision) ([]any, error) {
	switch {
	case t.Deleted:
		return nil, aggregate.Reject("deleted", "the to-do is deleted")
	case t.Done:
		return nil, nil
	}
	return []any{Completed{}}, nil
}

func remove(t Todo, _ Delete, _ aggregate.Decision) ([]any, error) {
	if t.Deleted {
		return nil, nil
	}
	return []any{Deleted{}}, nil
}
