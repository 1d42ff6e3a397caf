package console

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/wire"
)

// pageBytes bounds a page of deadlines or sagas as it is read.
const pageBytes = 512 << 10

// deadline is a command that waits for its time.
type deadline struct {
	Type       string          `json:"type"`
	ID         string          `json:"id"`
	Command    string          `json:"command"`
	Body       json.RawMessage `json:"body,omitempty"`
	Subscriber string          `json:"subscriber"`
	EventID    string          `json:"eventId"`
	Step       string          `json:"step"`
	Due        *time.Time      `json:"due,omitempty"`
	Set        time.Time       `json:"set"`
}

// waiting is a page of what waits. After is where the next one begins, 0 at the end;
// Left counts what comes after this page.
type waiting[T any] struct {
	Items []T    `json:"items"`
	After uint64 `json:"after,omitempty"`
	Left  uint64 `json:"left"`
}

// page reads what a stream holds under a subject.
func page[T any](
	c *Console, r *http.Request, stream, subject string, read func(m *wire.Message) T,
) (*waiting[T], error) {
	n, err := limit(r)
	if err != nil {
		return nil, err
	}
	after, err := number("after", r.URL.Query().Get("after"))
	if err != nil {
		return nil, err
	}
	out := &waiting[T]{Items: []T{}}
	got, err := wire.Batch(r.Context(), c.cfg.Store.Conn(), stream, subject, after+1, n, pageBytes)
	if errors.Is(err, nats.ErrNoResponders) {
		return out, nil // nobody ever used it
	}
	if err != nil {
		return nil, err
	}
	for i := range got.Messages {
		out.Items = append(out.Items, read(&got.Messages[i]))
		out.After = got.Messages[i].Sequence
	}
	if out.Left = got.Pending; out.Left == 0 {
		out.After = 0
	}
	return out, nil
}

// getDeadlines lists the commands that reactors and sagas have set for later, in the
// order in which they were set.
func (c *Console) getDeadlines(r *http.Request) (any, error) {
	name := c.cfg.Store.Name()
	return page(c, r, name+"__timers", name+".timer.set.>", func(m *wire.Message) deadline {
		d := deadline{}
		_ = json.Unmarshal(m.Data, &d) // what it does not tell is not shown
		d.Set = m.Time
		for _, at := range m.Header["Nats-Schedule"] {
			if due, err := time.Parse(time.RFC3339, strings.TrimPrefix(at, "@at ")); err == nil {
				d.Due = &due
			}
		}
		return d
	})
}
