package jetstream

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strconv"
	"strings"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/wire"
)

// What a copy has on its way at once. The server takes a stream's messages one by
// one, so more would only wait there.
const (
	copyWindow      = 256
	copyWindowBytes = 8 << 20
)

// copyHeads is how many aggregates' last commits a copy remembers. Those of others
// cost a read from the leader.
const copyHeads = 1 << 17

// copyReportEvery is the number of commits between two reports.
const copyReportEvery = 500

// copier appends copies through a window of unacknowledged messages. Each message
// expects the sequence before it to be the stream's last, so it can stand in one
// place only, whatever is lost, late or repeated on the way: after a fault the
// places are read, and what is missing is sent again.
type copier struct {
	s          *Store
	from       CopySource
	replicated bool
	heads      *lru.Cache[string, Head]

	// answers come to inbox.<generation>.<sequence>; those of older generations
	// are not listened to.
	sub        *nats.Subscription
	answers    chan *nats.Msg
	inbox      string
	generation int
	timer      *time.Timer

	// window are the messages on their way, oldest first. next is the sequence that
	// the next one will have.
	window []*copied
	bytes  int
	busy   map[string]int
	next   uint64

	// group are the commits of a transaction that has not been seen whole.
	group []*copied
	// skipTo is the id of the last commit in the store, until it has passed by.
	skipTo string
	last   *Commit
	// goesOn tells that the source's next message is the one after the last commit.
	goesOn bool

	progress CopyProgress
	reported uint64
}

// copied is a commit on its way.
type copied struct {
	commit *Commit // as it is in the source
	msg    *nats.Msg
	seq    uint64
	after  uint64 // the aggregate's commit before, in this store
	stored bool
}

func newCopier(ctx context.Context, s *Store, from CopySource) (*copier, error) {
	heads, err := lru.New[string, Head](copyHeads)
	if err != nil {
		return nil, err
	}
	c := &copier{
		s: s, from: from, replicated: s.replicas > 1, heads: heads, busy: map[string]int{},
		inbox: s.nc.NewInbox(), answers: make(chan *nats.Msg, 4*copyWindow), timer: time.NewTimer(time.Hour),
	}
	first, err := s.leaderLast(ctx, wire.Everything)
	if err != nil {
		return nil, fmt.Errorf("copy into store %q: %w", s.name, err)
	}
	c.next = first.Sequence + 1
	c.progress.Sequence = first.Sequence
	if !IsGenesis(&first) {
		if c.last, err = Decode(&first); err != nil {
			return nil, err
		}
		if c.last.Origin == nil {
			return nil, &CopyError{
				Store: s.name, Type: c.last.Type, ID: c.last.ID, CommitID: c.last.CommitID,
				Reason: "was written here: only a new store, or one that nobody else has written to, can be copied into",
				Cause:  ErrNotACopy,
			}
		}
		c.skipTo = c.last.CommitID
	}
	if from.Follows != "" {
		switch c.skipTo {
		case "":
			return nil, &CopyError{Store: s.name, Reason: fmt.Sprintf(
				"the store is empty, but what is to be copied goes on after commit %s: copy what is before it first", from.Follows)}
		case from.Follows:
			c.skipTo, c.goesOn = "", true
		}
	}
	if c.sub, err = s.nc.ChanSubscribe(c.inbox+".*.*", c.answers); err != nil {
		return nil, fmt.Errorf("copy into store %q: %w", s.name, err)
	}
	return c, nil
}

func (c *copier) close() {
	c.timer.Stop()
	_ = c.sub.Unsubscribe() // fails only on a connection that has ended
}

func (c *copier) report() {
	if c.from.Report != nil {
		c.from.Report(c.progress)
	}
	c.reported = c.progress.Commits
}

// add takes the source's next message.
func (c *copier) add(ctx context.Context, m *Message, commit *Commit) error {
	if c.skipTo != "" {
		c.progress.Present++
		c.progress.Source = commit.Sequence
		if commit.CommitID != c.skipTo {
			return nil
		}
		c.skipTo = ""
		return c.passed(commit)
	}
	if c.goesOn && !c.from.Part && commit.Sequence != c.next {
		return c.fault(&copied{commit: commit}, fmt.Sprintf(
			"would stand at %d here: the store was to hold something else", c.next), ErrNotACopy)
	}
	c.goesOn = false
	item := &copied{commit: commit, msg: &nats.Msg{
		Subject: c.s.prefix + commit.Type + "." + strconv.Itoa(Partition(commit.ID, c.s.partitions)) + "." + commit.ID,
		Header:  copyHeaders(m, c.from.StoreID), Data: m.Data,
	}}
	if len(c.group) > 0 && !sameTx(c.group[0].commit, commit) {
		if err := c.flushGroup(ctx); err != nil {
			return err
		}
	}
	if commit.Tx == nil {
		return c.send(ctx, item)
	}
	c.group = append(c.group, item)
	if len(c.group) == commit.Tx.Count {
		return c.flushGroup(ctx)
	}
	return nil
}

// passed checks that what was passed over is all that stands in the store: a store
// that was to hold less may end with the same commit.
func (c *copier) passed(commit *Commit) error {
	has, due := c.last.Sequence, commit.Sequence
	switch {
	case c.from.Part && c.from.Follows != "":
		return nil // How many are before it, nobody has counted.
	case c.from.Part:
		due = c.progress.Present + 1 // after the genesis
	}
	if has == due {
		return nil
	}
	return c.fault(&copied{commit: commit}, fmt.Sprintf(
		"stands at %d here, where a copy of what is before it has it at %d: the store was to hold something else", has, due),
		ErrNotACopy)
}

func sameTx(a, b *Commit) bool { return b.Tx != nil && a.Tx.ID == b.Tx.ID && a.Tx.Index < b.Tx.Index }

// finish waits for everything to be decided.
func (c *copier) finish(ctx context.Context) error {
	if err := c.flushGroup(ctx); err != nil {
		return err
	}
	for len(c.window) > 0 {
		if err := c.await(ctx); err != nil {
			return err
		}
	}
	return nil
}

// place gives a commit its place after the aggregate's last one.
func (c *copier) place(ctx context.Context, i *copied) error {
	head, err := c.head(ctx, i)
	if err != nil {
		return err
	}
	commit := i.commit
	//nolint:gosec // a length
	if head.CommitID != commit.Previous || head.Ordinal+1 != commit.Ordinal ||
		head.Version+uint64(commit.Events()) != commit.Version {
		return c.fault(i, fmt.Sprintf("follows commit %q with ordinal %d and version %d, "+
			"but the aggregate's last one here is %q with ordinal %d and version %d",
			commit.Previous, commit.Ordinal, commit.Version, head.CommitID, head.Ordinal, head.Version), nil)
	}
	i.seq, i.after = c.next, head.Sequence
	c.next++
	wire.Expect(i.msg, head.Sequence)
	i.msg.Header[nats.ExpectedLastSeqHdr] = []string{strconv.FormatUint(i.seq-1, 10)}
	head = commit.Head
	head.Sequence = i.seq
	c.heads.Add(i.msg.Subject, head)
	return nil
}

// head is the aggregate's last commit in this store. A first commit needs none:
// the server checks that it is.
func (c *copier) head(ctx context.Context, i *copied) (Head, error) {
	if head, ok := c.heads.Get(i.msg.Subject); ok {
		return head, nil
	}
	if i.commit.Ordinal == 1 {
		return Head{}, nil
	}
	m, err := c.s.leaderLast(ctx, i.msg.Subject)
	if errors.Is(err, ErrNotFound) {
		return Head{}, nil
	}
	if err != nil {
		return Head{}, fmt.Errorf("copy into store %q: %w", c.s.name, err)
	}
	last, err := Decode(&m)
	if err != nil {
		return Head{}, err
	}
	return last.Head, nil
}

func (c *copier) fault(i *copied, reason string, cause error) error {
	return &CopyError{
		Store: c.s.name, Sequence: i.commit.Sequence, Type: i.commit.Type, ID: i.commit.ID, CommitID: i.commit.CommitID,
		Reason: reason, Cause: cause,
	}
}

// send puts a commit on its way, once there is room.
func (c *copier) send(ctx context.Context, i *copied) error {
	size := i.msg.Size()
	for len(c.window) > 0 && (len(c.window) >= copyWindow || c.bytes+size > copyWindowBytes ||
		c.replicated && c.busy[i.msg.Subject] > 0) {
		if err := c.await(ctx); err != nil {
			return err
		}
	}
	if err := c.place(ctx, i); err != nil {
		return err
	}
	c.window = append(c.window, i)
	c.busy[i.msg.Subject]++
	c.bytes += size
	err := c.publish(i)
	if errors.Is(err, nats.ErrMaxPayload) {
		// What is before it can be stored.
		c.window = c.window[:len(c.window)-1]
		if err := c.finish(ctx); err != nil {
			return err
		}
		return &RefusedError{Type: i.commit.Type, ID: i.commit.ID, Cause: err}
	}
	if err != nil {
		return c.recover(ctx, err)
	}
	return nil
}

// attemptError is what became of an attempt to store the commit at seq.
type attemptError struct {
	seq uint64
	error
}

func (e *attemptError) Unwrap() error { return e.error }

func (c *copier) publish(i *copied) error {
	i.msg.Reply = c.inbox + "." + strconv.Itoa(c.generation) + "." + strconv.FormatUint(i.seq, 10)
	if err := c.s.nc.PublishMsg(i.msg); err != nil {
		return &attemptError{i.seq, err}
	}
	return nil
}

// await waits for an answer, and takes what else has come.
func (c *copier) await(ctx context.Context) error {
	c.timer.Reset(min(c.s.attempt, c.s.timeout))
	select {
	case <-ctx.Done():
		return c.ended(ctx, nil)
	case <-c.timer.C:
		return c.recover(ctx, nats.ErrTimeout)
	case msg := <-c.answers:
		if err := c.answer(msg); err != nil {
			return c.recover(ctx, err)
		}
	}
	for {
		select {
		case msg := <-c.answers:
			if err := c.answer(msg); err != nil {
				return c.recover(ctx, err)
			}
		default:
			return nil
		}
	}
}

// answer takes one answer; what belongs to an earlier generation decides nothing.
func (c *copier) answer(msg *nats.Msg) error {
	generation, number, _ := strings.Cut(strings.TrimPrefix(msg.Subject, c.inbox+"."), ".")
	seq, err := strconv.ParseUint(number, 10, 64)
	if err != nil || generation != strconv.Itoa(c.generation) || len(c.window) == 0 || seq < c.window[0].seq {
		return nil //nolint:nilerr // not an answer that anybody waits for
	}
	ack, err := wire.Answer(msg)
	if err != nil {
		return &attemptError{seq, err}
	}
	if ack.Stream != c.s.name || ack.Sequence != seq {
		return fmt.Errorf("%w: stream %q stored at %d what was to be at %d of %q",
			wire.ErrProtocol, ack.Stream, ack.Sequence, seq, c.s.name)
	}
	if k := seq - c.window[0].seq; k < uint64(len(c.window)) {
		c.window[k].stored = true
	}
	c.advance()
	return nil
}

// advance takes what is stored out of the window.
func (c *copier) advance() {
	n := 0
	for ; n < len(c.window) && c.window[n].stored; n++ {
		i := c.window[n]
		if c.busy[i.msg.Subject]--; c.busy[i.msg.Subject] == 0 {
			delete(c.busy, i.msg.Subject)
		}
		c.bytes -= i.msg.Size()
		c.done(i)
	}
	c.window = append(c.window[:0], c.window[n:]...)
}

// done counts a commit that is stored.
func (c *copier) done(i *copied) {
	c.progress.Commits++
	c.progress.Bytes += uint64(len(i.msg.Data))
	c.progress.Source, c.progress.Sequence = i.commit.Sequence, i.seq
	c.s.horizon.see(i.seq)
	if c.progress.Commits-c.reported >= copyReportEvery {
		c.report()
	}
}

// flushGroup appends a transaction, whole, after everything before it.
func (c *copier) flushGroup(ctx context.Context) error {
	group := c.group
	c.group = nil
	if len(group) == 0 {
		return nil
	}
	if n := group[0].commit.Tx.Count; len(group) != n {
		if !c.from.Part {
			return c.fault(group[len(group)-1], fmt.Sprintf("is of a transaction of %d commits, of which %d are there",
				n, len(group)), nil)
		}
		renumber(group)
	}
	if len(group) == 1 {
		return c.send(ctx, group[0])
	}
	for len(c.window) > 0 {
		if err := c.await(ctx); err != nil {
			return err
		}
	}
	subjects := map[string]bool{}
	for k, i := range group {
		if subjects[i.msg.Subject] {
			return c.fault(i, "is the second of its aggregate in one transaction", nil)
		}
		subjects[i.msg.Subject] = true
		if err := c.place(ctx, i); err != nil {
			return err
		}
		if k > 0 { // only the first of a batch may say what the stream ends with
			delete(i.msg.Header, nats.ExpectedLastSeqHdr)
		}
	}
	return c.batch(ctx, group)
}

// renumber makes a transaction of what a selection left of one, and keeps what it
// was. A commit that is left alone is no transaction.
func renumber(group []*copied) {
	for k, i := range group {
		h := i.msg.Header
		if header(h, headerOriginTx) == "" {
			h[headerOriginTx] = h[headerTx]
		}
		if len(group) == 1 {
			delete(h, headerTx)
			continue
		}
		h[headerTx] = []string{fmt.Sprintf("%s %d/%d", i.commit.Tx.ID, k+1, len(group))}
	}
}

// batch sends a transaction until it is stored.
func (c *copier) batch(ctx context.Context, group []*copied) error {
	wait, began := newBackoff(), time.Now()
	for publish := wire.PublishBatch; ; publish = wire.PublishBatchAsking { // after a fault, ask which
		msgs := make([]*nats.Msg, 0, len(group))
		for _, i := range group {
			msgs = append(msgs, &nats.Msg{Subject: i.msg.Subject, Header: maps.Clone(i.msg.Header), Data: i.msg.Data})
		}
		attempt, cancel := context.WithTimeout(ctx, min(c.s.attempt, c.s.timeout))
		_, err := publish(attempt, c.s.nc, msgs)
		cancel()
		stored := err == nil
		if err != nil {
			err = &attemptError{group[0].seq, err}
			var fault error
			if stored, fault = c.look(ctx, err, group...); fault != nil {
				return fault
			}
		}
		if stored { // all of a batch is, or none
			for _, i := range group {
				c.done(i)
			}
			return nil
		}
		if err := c.pause(ctx, wait, began, err); err != nil {
			return err
		}
	}
}
