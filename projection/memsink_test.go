package projection_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// memory is a sink without a database: rows and records in maps.
type memory struct {
	writing chan struct{} // one transaction at a time, as with a lock of the record

	mu      sync.Mutex
	rows    map[string]account
	records map[string]projection.SinkRecord

	// fault, when set, is asked before a commit and after it: what it returns is the
	// transaction's error.
	fault func(committed bool) error
}

// memoryTx is a transaction: the rows as it leaves them.
type memoryTx struct{ rows map[string]account }

func (tx *memoryTx) credit(id string, cents int64) {
	a := tx.rows[id]
	a.Cents, a.Events = a.Cents+cents, a.Events+1
	if a.History = append(slices.Clip(a.History), cents); len(a.History) > 10 {
		a.History = a.History[1:]
	}
	tx.rows[id] = a
}

// errMemory may pass by itself.
var errMemory = errors.New("the memory is away")

func newMemory() *memory {
	return &memory{
		writing: make(chan struct{}, 1), rows: map[string]account{}, records: map[string]projection.SinkRecord{},
	}
}

func (m *memory) Load(ctx context.Context, name string) (projection.SinkRecord, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.records[name], ctx.Err()
}

func (m *memory) Transact(
	ctx context.Context, name string, expected uint64, data []byte, apply func(tx *memoryTx) error,
) error {
	select {
	case m.writing <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	// The end of ctx ends the transaction, also while apply goes on.
	release := sync.OnceFunc(func() { <-m.writing })
	stop := context.AfterFunc(ctx, release)
	defer func() {
		if stop() {
			release()
		}
	}()
	m.mu.Lock()
	revision, tx := m.records[name].Revision, &memoryTx{rows: maps.Clone(m.rows)}
	m.mu.Unlock()
	if revision != expected {
		return projection.ErrSinkConflict
	}
	if err := apply(tx); err != nil {
		return err
	}
	if !stop() {
		return ctx.Err()
	}
	defer release()
	if err := m.faulty(false); err != nil {
		return err
	}
	m.mu.Lock()
	m.rows, m.records[name] = tx.rows, projection.SinkRecord{Revision: expected + 1, Data: data}
	m.mu.Unlock()
	return m.faulty(true)
}

func (m *memory) faulty(committed bool) error {
	if m.fault == nil {
		return nil
	}
	return m.fault(committed)
}

func (m *memory) Transient(err error) bool { return errors.Is(err, errMemory) }

// snapshot is the rows and the record that belongs to them.
func (m *memory) snapshot(name string) (map[string]account, projection.SinkRecord) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rows, m.records[name]
}

// sinkAccounts is accounts for memory.
func sinkAccounts() *projection.SinkDefinition[*memoryTx] {
	type meta = jetstream.Meta
	return projection.NewSinkDefinition("accounts",
		func(_ context.Context, tx *memoryTx) error {
			clear(tx.rows)
			return nil
		},
		projection.OnSink(accountEvents, func(_ context.Context, tx *memoryTx, e opened, m meta) error {
			a := tx.rows[m.ID]
			a.Owner, a.Events = e.Owner, a.Events+1
			tx.rows[m.ID] = a
			return nil
		}),
		projection.OnSink(accountEvents, func(_ context.Context, tx *memoryTx, e credited, m meta) error {
			tx.credit(m.ID, e.Cents)
			return nil
		}),
		projection.OnSink(accountEvents, func(_ context.Context, tx *memoryTx, e moved, _ meta) error {
			for _, key := range []string{e.From, e.To} {
				a := tx.rows[key]
				if key == e.From {
					a.Cents -= e.Cents
				} else {
					a.Cents += e.Cents
				}
				a.Events++
				tx.rows[key] = a
				if e.From == e.To {
					break
				}
			}
			return nil
		}),
		projection.OnSink(accountEvents, func(_ context.Context, tx *memoryTx, _ closed, m meta) error {
			delete(tx.rows, m.ID)
			return nil
		}),
	)
}
