package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
	"github.com/rossby-go/rossby/test/torture/check"
	"github.com/rossby-go/rossby/test/torture/rig"
)

const (
	// decideFor bounds the check of one account's history.
	decideFor = 20 * time.Second
)

// follows tells whether a follower has done everything up to a sequence.
func (e *env) follows(ctx context.Context, store *jetstream.Store, name string, seq uint64) error {
	s, err := aggregate.ReadStatus(ctx, store, name)
	if err != nil {
		return err
	}
	if s.Floor < seq {
		return fmt.Errorf("%s is %s at %d of %d: %w", name, s.State, s.Floor, seq, s.LastError)
	}
	return nil
}

// log is what the store holds in the end.
type log struct {
	stored   []check.Stored
	versions map[string]uint64
	rows     map[string]check.Row
	cents    map[string]int64 // of purses
	debits   []string         // tags of payments that were begun
	owners   []check.Owner
	messages uint64
}

// readLog reads the whole store from its leader.
func (e *env) readLog(ctx context.Context) (*log, error) {
	l := &log{versions: map[string]uint64{}, rows: map[string]check.Row{}, cents: map[string]int64{}}
	store := e.stores[pathB]
	decoder, err := jetstream.NewDecoder(jetstream.StopOnUnknown, accountEvents, elementEvents, purseEvents)
	if err != nil {
		return nil, err
	}
	total := check.Row{}
	for commit, err := range store.Scan(ctx, "", jetstream.Range{}) {
		if err != nil {
			return nil, err
		}
		l.messages = commit.Sequence
		events, err := decoder.Events(store, commit)
		if err != nil {
			return nil, err
		}
		for _, r := range events {
			l.stored = append(l.stored, check.Stored{Tag: tagOf(r.Event), Sequence: commit.Sequence})
			switch ev := r.Event.(type) {
			case added:
				l.cents[commit.Type] += ev.Cents
				continue
			case claimed:
				l.owners = append(l.owners, check.Owner{Name: ev.Name, Account: r.ID})
			case debited:
				if ev.To != "" {
					l.debits = append(l.debits, ev.Tag)
				}
			}
			row := l.rows[r.ID]
			fold(&row, r.Event, r.Version)
			fold(&total, r.Event, r.Version)
			l.rows[r.ID], l.versions[r.ID] = row, r.Version
		}
	}
	l.rows[totalKey] = total
	return l, nil
}

// effects are what the payments must have led to, once each.
func (l *log) effects() []check.Element {
	var all []check.Element
	for _, debit := range l.debits {
		all = append(all, check.Element{Tag: effectTag(debit), Outcome: check.OK, Times: 1})
		if tag := deadlineTag(debit); tag != "" {
			all = append(all, check.Element{Tag: tag, Outcome: check.OK, Times: 1})
		}
	}
	return all
}

// judge reads everything that there is in the end, and compares.
func (e *env) judge(ctx context.Context, r *result, took time.Duration) error {
	r.Took = took
	var found []string
	if err := e.cluster.Settled(ctx, e.Patience, storeName); err != nil {
		found = append(found, err.Error())
	}
	for i, m := range e.modules {
		m.Thaw()
		select {
		case <-m.Done():
			found = append(found, fmt.Sprintf("modules m%d ended by themselves", i))
		default:
		}
	}
	l := &log{}
	// What a soak has stored takes a while to be read.
	patience := max(e.Patience, e.Soak/6)
	err := rig.Until(ctx, patience, "followers and timers do not come to an end", func(context.Context) error {
		if err := e.caughtUp(ctx); err != nil {
			return err
		}
		read, err := e.readLog(ctx)
		if err != nil {
			return fmt.Errorf("the store cannot be read: %w", err)
		}
		l = read
		if n := check.Lost(l.effects(), l.stored); n > 0 {
			return fmt.Errorf("%d payments or deadlines are missing", n)
		}
		return nil
	})
	if err != nil {
		found = append(found, err.Error())
		// What is checked is what the store holds, though followers are behind.
		if read, err := e.readLog(ctx); err == nil {
			l = read
		}
	}
	e.finalReads(ctx)
	handled := e.receiver.all("")
	e.history.mu.Lock()
	elements := slices.Clone(e.elements)
	elements = append(elements, l.effects()...)
	found = append(found, e.alarms...)
	lin, checked, out := check.Linearizable(e.ops, e.windows, decideFor)
	r.Checked, r.LeftOut, r.Operations, r.Outcomes = checked, out, len(elements)+r.reads(e.ops), outcomes(e.ops)
	r.Faults, r.Views = slices.Clone(e.faults), e.views
	e.history.mu.Unlock()

	found = append(found, lin...)
	found = append(found, check.Set(elements, l.stored)...)
	found = append(found, check.Unique(l.owners)...)
	found = append(found, check.Order(handled)...)
	found = append(found, check.Complete(handled, []string{reactorName, gatewayName}, l.versions)...)
	calls := e.receiver.all(gatewayName)
	keys, repeats := check.Keys(calls)
	found = append(found, keys...)
	if most := e.mayRepeat(); most >= 0 && repeats > most {
		found = append(found, fmt.Sprintf("%d deliveries were repeated, want %d at most", repeats, most))
	}
	if sum := l.cents[purseEvents.Type()]; sum != 0 {
		found = append(found, fmt.Sprintf("the purses hold %d cents, want 0", sum))
	}
	found = append(found, e.books(l)...)
	found = append(found, e.compareViews(ctx, l)...)
	found = append(found, e.replicas(ctx)...)
	found = append(found, e.verified(ctx)...)
	found = append(found, e.complaints()...)
	r.Events, r.Messages, r.Handled, r.Repeats = len(l.stored), l.messages, len(calls), repeats
	r.Violations = found
	lost := check.Lost(elements, l.stored)
	damaged := slices.Contains(e.Nemeses, nemDamage) && slices.ContainsFunc(found, func(text string) bool {
		return strings.HasPrefix(text, verifyFound)
	})
	if e.mayLose() || lost > 0 && damaged {
		r.Lost, r.Violations = lost, nil
	}
	return e.save(e.dir, handled, l.stored)
}

// mayRepeat is how many deliveries may have been repeated: those that got no answer,
// and those that were under way when a process was killed. Below 0 there is no bound:
// what a server does not keep for the ledger cannot be known.
func (e *env) mayRepeat() int {
	most := e.receiver.droppedOf(gatewayName)
	for _, f := range e.faults {
		if f.Name != nemKillModules && f.Name != nemNone {
			return -1
		}
	}
	return most + e.ownerKills*gatewayConcurrency
}

func (r *result) reads(ops []check.Op) int {
	n := 0
	for i := range ops {
		if ops[i].Kind == check.Read {
			n++
		}
	}
	return n
}

func outcomes(ops []check.Op) map[string]int {
	n := map[string]int{}
	for i := range ops {
		n[string(ops[i].Outcome)]++
	}
	return n
}

// finalReads loads every register once more, by a client that has not seen it.
func (e *env) finalReads(ctx context.Context) {
	e.history.mu.Lock()
	met := map[string]bool{}
	for i := range e.ops {
		met[e.ops[i].Account] = true
	}
	e.history.mu.Unlock()
	for account := range met {
		e.op(e.read(ctx, check.Op{Account: account, Kind: check.Read, Path: pathB}))
	}
}

// books checks that the bank's accounts hold what was paid in.
func (e *env) books(l *log) []string {
	var sum, want int64
	for id, row := range l.rows {
		if strings.HasPrefix(id, "bank-") {
			sum += row.Balance
			want += bankOpening
		}
	}
	if sum != want {
		return []string{fmt.Sprintf("the bank's accounts hold %d cents, %d were paid in", sum, want)}
	}
	return nil
}

// compareViews compares the views with the fold of the log.
func (e *env) compareViews(ctx context.Context, l *log) []string {
	var found []string
	for _, view := range []string{accountsView, totalsView} {
		want := map[string]check.Row{}
		for key, row := range l.rows {
			if key != totalKey || view == totalsView {
				want[key] = row
			}
		}
		got := map[string]check.Row{}
		reader, err := projection.NewReader[check.Row](ctx, e.conns[1], storeName, view, projection.ReaderConfig{})
		if err != nil {
			found = append(found, err.Error())
			continue
		}
		for entry, err := range reader.List(ctx, projection.ListOptions{}) {
			if err != nil {
				found = append(found, err.Error())
				break
			}
			got[entry.Key] = entry.Value
		}
		found = append(found, check.Equal(view, got, want)...)
	}
	return found
}

// replicas compares what each server has of the store: a server answers direct gets
// of its own clients from its own copy.
func (e *env) replicas(ctx context.Context) []string {
	streams := []string{storeName}
	var found []string
	for _, stream := range streams {
		var all []check.Replica
		for _, n := range e.cluster.Nodes {
			r, err := replica(ctx, n, stream)
			if err != nil {
				found = append(found, fmt.Sprintf("read %s of %s: %v", stream, n.Name, err))
				continue
			}
			all = append(all, r)
		}
		found = append(found, check.Agree(all)...)
	}
	return found
}

func replica(ctx context.Context, n *rig.Node, stream string) (check.Replica, error) {
	r := check.Replica{Name: n.Name, Digests: map[uint64]string{}}
	nc, err := nats.Connect("nats://"+n.Addr, nats.IgnoreDiscoveredServers(), nats.NoReconnect())
	if err != nil {
		return r, err
	}
	defer nc.Close()
	for next := uint64(1); ; {
		once, cancel := context.WithTimeout(ctx, 5*time.Second)
		page, err := wire.Batch(once, nc, stream, wire.Everything, next, 500, 4<<20)
		cancel()
		if errors.Is(err, wire.ErrNotFound) || err == nil && len(page.Messages) == 0 {
			return r, nil
		}
		if err != nil {
			return r, err
		}
		for i := range page.Messages {
			m := &page.Messages[i]
			sum := sha256.New()
			sum.Write([]byte(m.Subject + "\n" + m.Header.Get("Rossby-Commit") + "\n"))
			sum.Write(m.Data)
			r.Digests[m.Sequence] = hex.EncodeToString(sum.Sum(nil)[:8])
			next = m.Sequence + 1
		}
		if page.Pending == 0 {
			return r, nil
		}
	}
}

// complaints are what servers say about their files, when nothing was done to those.
func (e *env) complaints() []string {
	names := strings.Join(e.Nemeses, ",")
	if strings.Contains(names, "disk") || strings.Contains(names, nemDamage) || e.mayLose() {
		return nil
	}
	var found []string
	for _, n := range e.cluster.Nodes {
		text, err := os.ReadFile(n.Log())
		if err != nil {
			return append(found, err.Error())
		}
		for line := range strings.Lines(string(text)) {
			if check.Complaint(line) {
				found = append(found, n.Name+" says: "+strings.TrimSpace(line))
			}
		}
	}
	return found
}

// verifyFound begins what the toolkit's own check finds. What damaged disks lose must
// be among it.
const verifyFound = "verify: "

// verified is what the toolkit's own check of the store finds.
func (e *env) verified(ctx context.Context) []string {
	var found []string
	for damage, err := range e.stores[pathB].Verify(ctx, jetstream.Verification{
		Schemas: []*jetstream.Schema{accountEvents, elementEvents, purseEvents},
	}) {
		if err != nil {
			return append(found, verifyFound+err.Error())
		}
		found = append(found, verifyFound+damage.Error())
	}
	return found
}
