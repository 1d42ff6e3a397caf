package aggregate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/rossby-go/rossby/internal/dispatch"
	"github.com/rossby-go/rossby/internal/follow"
	"github.com/rossby-go/rossby/internal/memstore"
	"github.com/rossby-go/rossby/jetstream"
)

// Rehearsal runs the handlers of a reactor over a store in memory, one commit at a
// time. It is what aggregatetest is built on: use that.
type Rehearsal struct {
	store *memstore.Store
	table *dispatch.Table
}

// NewRehearsal makes a rehearsal. Returns the mistakes in the handlers, joined.
func NewRehearsal(store *memstore.Store, name string, handlers ...ReactorOption) (*Rehearsal, error) {
	def := &reactorDef{name: name, timers: memTimers{store}, rehearse: store, table: dispatch.NewTable()}
	if err := errors.Join(jetstream.ValidateName("reactor name", name), def.build(handlers)); err != nil {
		return nil, err
	}
	return &Rehearsal{store: store, table: def.table}, nil
}

// Handle handles the events of a commit, up to the first that fails.
func (r *Rehearsal) Handle(ctx context.Context, c *jetstream.Commit, attempt int) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = &follow.PanicError{Value: p, Stack: debug.Stack()}
		}
	}()
	return r.table.Handle(ctx, r.store, c, follow.Delivery{Epoch: 1, Attempt: attempt})
}

// RehearseTimer executes a due timer of a store in memory, on the target of its
// type.
func RehearseTimer(ctx context.Context, t memstore.Timer, targets ...Target) error {
	byType := map[string]Target{}
	for _, target := range targets {
		byType[target.TypeName()] = target
	}
	return fire(ctx, t.Data, byType)
}

// memTimers are timers in memory.
type memTimers struct{ store *memstore.Store }

func (m memTimers) set(_ context.Context, t *timer, due time.Time) error {
	data, err := json.Marshal(t)
	if err != nil {
		return fmt.Errorf("timer: %w", err)
	}
	m.store.SetTimer(memstore.Timer{Key: t.place(), Due: due, Data: data})
	return nil
}

func (m memTimers) cancel(_ context.Context, name timerName, before jetstream.Meta) error {
	for _, waiting := range m.store.Timers() {
		var t timer
		if err := json.Unmarshal(waiting.Data, &t); err != nil {
			return fmt.Errorf("timer %q: %w", waiting.Key, err)
		}
		if t.name() == name && t.setBefore(before) {
			m.store.DropTimer(waiting.Key)
		}
	}
	return nil
}
