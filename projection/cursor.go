package projection

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/mutate"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

// Timing of the pull loop.
const (
	heartbeat = 100 * time.Millisecond
	silence   = 1500 * time.Millisecond
)

// fruitless is how many times in a row the cursor is opened without a message
// before its consumer is made anew: somebody's pull requests wait there.
const fruitless = 3

// firstWindow is what is asked for ahead until the size of messages is known.
const firstWindow = 256

// windowBytes bounds the bytes that are asked for ahead, by the messages' mean
// size so far. A server cuts off a connection for which it has to keep too much, so
// less is asked for, down to leastBytes, when the connection was lost.
const (
	windowBytes = 32 << 20
	leastBytes  = 512 << 10
)

// chunkSize is how many commits are handed on together, chunkBytes about how many
// bytes of them: chunks wait for a slow fold.
const (
	chunkSize  = 256
	chunkBytes = 512 << 10
)

// item is a commit that may concern the view.
type item struct {
	commit *jetstream.Commit
	// start and end are the sequences of its transaction's first and last commit.
	start, end uint64
	bytes      int
	err        error
}

// chunk is a stretch of the stream: what in it may concern the view.
type chunk struct {
	items []item
	// pos is the sequence up to which the stretch goes, pending the number of
	// messages that the server had after it.
	pos     uint64
	pending uint64
	last    lastCommit
	// bytes is about what it takes.
	bytes int
	// bound is pos, or when that stands in a transaction the sequence before it.
	bound uint64
}

// cursor reads the store in order from a durable consumer that carries no truth:
// whatever happens to it, it is reset to where the reader is.
type cursor struct {
	store   *jetstream.Store
	nc      *nats.Conn
	durable string
	narrowing

	max int
	// expires bounds a pull request: half of the lease, so that those of an owner
	// that was lost are gone before the next one reads.
	expires time.Duration
	log     *slog.Logger
	// verify finds out whether the store is still the one that was followed.
	verify func(ctx context.Context, pos uint64, last lastCommit) error
	follow func(m *wire.Message) (skip bool)
	seen   func(pos, pending uint64)
	step   func(string)
	// trouble is told why the store cannot be read, nil when it can again.
	trouble func(error)

	sub         *nats.Subscription
	msgs        chan *nats.Msg
	inbox       string
	pos         uint64 // the last sequence accepted
	bound       uint64 // of the last chunk
	last        lastCommit
	dseq        uint64
	outstanding int
	window      int
	meanSize    int
	budget      int // of bytes asked for ahead
	pending     uint64
	heard       time.Time
	troubled    bool
	reconnects  uint64
}

// gapError is a reason to open the cursor again.
type gapError struct{ reason string }

func (e *gapError) Error() string { return e.reason }

// run hands on the store's commits after pos until ctx ends or the store turns
// out to be another one.
func (c *cursor) run(ctx context.Context, out chan<- chunk) error {
	defer c.close()
	c.bound, c.budget = c.pos, windowBytes
	wait := newBackoff(5*time.Millisecond, time.Second)
	for tries := 0; ; {
		if tries++; tries > fruitless {
			if err := c.remove(ctx); err != nil {
				c.log.Debug("view's consumer was not removed", "error", err)
			}
		}
		err := c.open(ctx, tries)
		if err == nil {
			before := c.pos
			err = c.pull(ctx, out)
			if c.pos > before {
				c.clear()
				wait, tries = newBackoff(5*time.Millisecond, time.Second), 0
			}
			if c.nc.Stats().Reconnects != c.reconnects {
				c.budget = max(c.budget/2, leastBytes)
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if errors.Is(err, ErrStoreRestored) || errors.Is(err, errLost) || c.nc.IsClosed() {
			return errors.Join(err, closedError(c.nc))
		}
		c.log.Debug("view's cursor is opened again", "after", c.pos, "reason", err)
		if tries == fruitless {
			c.troubled = true
			c.trouble(fmt.Errorf("the store cannot be read: %w", err))
			c.log.Warn("view cannot read the store", "after", c.pos, "error", err)
		}
		if err := wait.next(ctx); err != nil {
			return err
		}
	}
}

// clear takes back what trouble was told.
func (c *cursor) clear() {
	if c.troubled {
		c.troubled = false
		c.trouble(nil)
	}
}

func closedError(nc *nats.Conn) error {
	if nc.IsClosed() {
		return fmt.Errorf("%w: %w", ErrUnavailable, nats.ErrConnectionClosed)
	}
	return nil
}

func (c *cursor) close() {
	if c.sub != nil {
		_ = c.sub.Unsubscribe()
		c.sub = nil
	}
}

// open leaves the old inbox, puts the consumer to the sequence after pos, and
// begins anew on a fresh inbox: with less each time that nothing came of it.
func (c *cursor) open(ctx context.Context, tries int) error {
	c.close()
	if err := c.verify(ctx, c.pos, c.last); err != nil {
		return err
	}
	if err := c.ensure(ctx); err != nil {
		return err
	}
	body, err := json.Marshal(map[string]uint64{"seq": c.pos + 1})
	if err != nil {
		return err
	}
	if !mutate.On(mutate.ViewIgnoresGaps) {
		if err := c.api(ctx, "CONSUMER.RESET."+c.store.Name()+"."+c.durable, body); err != nil {
			return err
		}
	}
	c.msgs = make(chan *nats.Msg, 2*c.max+1024)
	c.inbox = c.nc.NewInbox()
	if c.sub, err = c.nc.ChanSubscribe(c.inbox, c.msgs); err != nil {
		return err
	}
	c.dseq, c.outstanding, c.heard = 0, 0, time.Now()
	c.restart(c.pos)
	c.window = max(min(firstWindow>>min(tries-1, 8), c.max, c.fits()), 1)
	c.reconnects = c.nc.Stats().Reconnects
	c.step("opened")
	return c.refill()
}

// ensure makes the consumer, or changes it to what it must be.
func (c *cursor) ensure(ctx context.Context) error {
	config := map[string]any{
		"name": c.durable, "durable_name": c.durable, "deliver_policy": "all", "ack_policy": "none",
		"replay_policy": "instant", "max_deliver": -1,
		"description": "Rossby view: shows place and lag, carries no truth",
	}
	subject := "CONSUMER.CREATE." + c.store.Name() + "." + c.durable
	if c.narrow {
		config["filter_subject"] = c.filter
		subject += "." + c.filter
	}
	body, err := json.Marshal(map[string]any{"stream_name": c.store.Name(), "config": config, "action": ""})
	if err != nil {
		return err
	}
	err = c.api(ctx, subject, body)
	if wire.Number(err) == 10012 { // somebody made it another way
		if err := c.api(ctx, "CONSUMER.DELETE."+c.store.Name()+"."+c.durable, nil); err != nil {
			return err
		}
		err = c.api(ctx, subject, body)
	}
	return err
}

// remove deletes the consumer, which only shows place and lag.
func (c *cursor) remove(ctx context.Context) error {
	return c.api(ctx, "CONSUMER.DELETE."+c.store.Name()+"."+c.durable, nil)
}

func (c *cursor) api(ctx context.Context, subject string, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, attemptTimeout)
	defer cancel()
	msg, err := wire.Ask(ctx, c.nc, "$JS.API."+subject, body)
	if err != nil {
		return fmt.Errorf("%s: %w", subject, err)
	}
	var resp struct {
		Error *wire.APIError `json:"error"`
	}
	if err := json.Unmarshal(msg.Data, &resp); err != nil {
		return fmt.Errorf("%s: %w: %w", subject, wire.ErrProtocol, err)
	}
	if resp.Error != nil {
		return fmt.Errorf("%s: %w", subject, resp.Error)
	}
	return nil
}

// refill asks for more once half of the window has come.
func (c *cursor) refill() error {
	if c.outstanding > c.window/2 {
		return nil
	}
	n := c.window - c.outstanding
	body := make([]byte, 0, 80)
	body = append(body, `{"batch":`...)
	body = strconv.AppendInt(body, int64(n), 10)
	body = append(body, `,"expires":`...)
	body = strconv.AppendInt(body, int64(c.expires), 10)
	body = append(body, `,"idle_heartbeat":`...)
	body = strconv.AppendInt(body, int64(min(heartbeat, c.expires/2)), 10)
	body = append(body, '}')
	if err := c.nc.PublishRequest("$JS.API.CONSUMER.MSG.NEXT."+c.store.Name()+"."+c.durable, c.inbox, body); err != nil {
		return err
	}
	c.outstanding += n
	c.window = min(2*c.window, c.max, c.fits())
	c.budget = min(c.budget+c.budget/64, windowBytes)
	return nil
}

// fits is the number of messages that may be asked for ahead.
func (c *cursor) fits() int { return max(c.budget/max(c.meanSize, 1), 4) }

// pull hands on chunks until something is missing.
func (c *cursor) pull(ctx context.Context, out chan<- chunk) error {
	tick := time.NewTicker(silence / 6)
	defer tick.Stop()
	for {
		var msg *nats.Msg
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case msg = <-c.msgs:
		case <-tick.C:
			if c.nc.Stats().Reconnects != c.reconnects && !mutate.On(mutate.ViewIgnoresGaps) {
				return &gapError{reason: "the connection was made again"}
			}
			if time.Since(c.heard) > silence || c.nc.IsClosed() {
				return &gapError{reason: "the server is silent"}
			}
			continue
		}
		c.heard = time.Now()
		chk := chunk{pos: c.pos, bound: c.bound, last: c.last}
		var gap error
		for n := 1; msg != nil && gap == nil; n++ {
			gap, msg = c.accept(ctx, msg, &chk), nil
			if n == chunkSize || chk.bytes >= chunkBytes {
				break
			}
			select {
			case msg = <-c.msgs:
			default:
			}
		}
		c.seen(chk.pos, c.pending)
		if gap == nil {
			c.clear()
		}
		if chk.pos > c.pos {
			c.pos, c.bound, c.last = chk.pos, chk.bound, chk.last
			chk.pending = c.pending
			c.step("read")
			select {
			case out <- chk:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		if gap != nil {
			return gap
		}
		if c.changes(c.pos) {
			return &gapError{reason: fmt.Sprintf("the consumer's filter is to be %t", c.narrow)}
		}
		if err := c.refill(); err != nil {
			return err
		}
	}
}

// accept takes one message in, or says why the cursor must be opened again.
func (c *cursor) accept(ctx context.Context, msg *nats.Msg, chk *chunk) error {
	if len(msg.Data) == 0 {
		if status := head(msg.Header, "Status"); status != "" {
			return c.status(ctx, status, msg, chk)
		}
	}
	seq, dseq, pending, stamp, err := parseReply(msg)
	if err != nil {
		return err
	}
	if mutate.On(mutate.ViewIgnoresGaps) {
		c.dseq = dseq - 1
	}
	if dseq != c.dseq+1 {
		return &gapError{reason: fmt.Sprintf("delivery %d came where %d was due", dseq, c.dseq+1)}
	}
	c.dseq = dseq
	c.note(msg)
	c.outstanding--
	c.pending = pending
	size := len(msg.Data) + 300
	if c.meanSize == 0 {
		c.meanSize = size
	}
	c.meanSize += (size - c.meanSize) / 16
	if size > 16*max(c.meanSize, 1) {
		c.meanSize = size / 16
	}
	if seq <= chk.pos {
		return nil
	}
	if dseq == 1 || !c.narrow && seq != chk.pos+1 {
		if err := c.nothingBefore(ctx, chk.pos, seq); err != nil {
			return err
		}
	}
	m := wire.Message{Subject: msg.Subject, Sequence: seq, Time: time.Unix(0, stamp), Header: msg.Header, Data: msg.Data}
	chk.pos, chk.bound = seq, seq
	index, count := wire.TxPlace(msg.Header)
	if index < count {
		chk.bound = seq - index
	}
	if jetstream.IsGenesis(&m) {
		return nil
	}
	chk.last = lastCommit{Sequence: seq, Commit: head(msg.Header, "Rossby-Commit"), Time: m.Time.UTC()}
	if c.follow(&m) {
		return nil
	}
	it := item{start: seq - index + 1, end: seq - index + count, bytes: len(msg.Data)}
	it.commit, it.err = jetstream.Decode(&m)
	if it.err != nil {
		it.commit = &jetstream.Commit{Head: jetstream.Head{Sequence: seq}}
	}
	if chk.items == nil {
		chk.items = make([]item, 0, min(max(c.outstanding+1, 1), chunkSize))
	}
	chk.items = append(chk.items, it)
	chk.bytes += it.bytes
	return nil
}

// status looks at what the server says beside messages.
func (c *cursor) status(ctx context.Context, status string, msg *nats.Msg, chk *chunk) error {
	switch status {
	case "100":
		dseq, err := strconv.ParseUint(head(msg.Header, "Nats-Last-Consumer"), 10, 64)
		if err != nil {
			return &gapError{reason: "a heartbeat without a place"}
		}
		if mutate.On(mutate.ViewIgnoresGaps) {
			c.dseq = dseq
		}
		if dseq != c.dseq {
			return &gapError{reason: fmt.Sprintf("the server has delivered up to %d, %d came", dseq, c.dseq)}
		}
		// Nothing is on its way: the server has looked at everything up to there.
		seq, err := strconv.ParseUint(head(msg.Header, "Nats-Last-Stream"), 10, 64)
		if err == nil && seq > chk.pos && !c.inside(ctx, seq) {
			if err := c.covered(ctx, seq); err != nil {
				return err
			}
			if err := c.nothingBefore(ctx, chk.pos, seq+1); err != nil {
				return err
			}
			chk.pos, chk.bound = seq, seq
		}
		c.pending = 0
		return nil
	case "404", "408":
		n, err := strconv.Atoi(head(msg.Header, "Nats-Pending-Messages"))
		if err != nil {
			n = c.outstanding
		}
		c.outstanding = max(c.outstanding-n, 0)
		return nil
	}
	return &gapError{reason: "the server says " + status + " " + head(msg.Header, "Description")}
}

// parseReply reads stream sequence, consumer sequence, pending count and time
// from a delivery's reply subject.
func parseReply(msg *nats.Msg) (seq, dseq, pending uint64, stamp int64, err error) {
	// $JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>
	if strings.Count(msg.Reply, ".") == 8 {
		rest := msg.Reply
		var numbers [4]uint64
		ok := true
		for i := range numbers {
			dot := strings.LastIndexByte(rest, '.')
			n, err := strconv.ParseUint(rest[dot+1:], 10, 64)
			numbers[i], ok = n, ok && err == nil
			rest = rest[:dot]
		}
		if ok {
			return numbers[3], numbers[2], numbers[0], int64(numbers[1]), nil //nolint:gosec // nanoseconds
		}
	}
	md, err := msg.Metadata()
	if err != nil {
		return 0, 0, 0, 0, &gapError{reason: "a message without place: " + msg.Subject + " " + head(msg.Header, "Status")}
	}
	return md.Sequence.Stream, md.Sequence.Consumer, md.NumPending, md.Timestamp.UnixNano(), nil
}
