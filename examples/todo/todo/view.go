package todo

import (
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// Item is a to-do as it is read.
type Item struct {
	Title string `json:"title"`
	Done  bool   `json:"done"`
}

// Items are the to-dos by their ids; the index "done" finds those that are done.
var Items = projection.NewKeyed("todos",
	projection.On(Events, func(i *Item, e Added, _ jetstream.Meta) { i.Title = e.Title }),
	projection.On(Events, func(i *Item, e Renamed, _ jetstream.Meta) { i.Title = e.Title }),
	projection.On(Events, func(i *Item, _ Completed, _ jetstream.Meta) { i.Done = true }),
	projection.OnRow(Events, func(row *projection.Row[Item], _ Deleted, _ jetstream.Meta) error {
		row.Delete()
		return nil
	}),
).Index("done", func(i Item) []string {
	if i.Done {
		return []string{"yes"}
	}
	return nil
})
