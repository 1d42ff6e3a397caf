package gateway

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/dispatch"
	"github.com/rossby-go/rossby/internal/mutate"
	"github.com/rossby-go/rossby/internal/wire"
	"github.com/rossby-go/rossby/jetstream"
)

const (
	// ledgerAttempts is how often an entry is tried before it is given up.
	ledgerAttempts = 2
	// ledgerResend is when an entry that was not acknowledged is sent again: what is
	// sent while the ledger has no leader is lost.
	ledgerResend = 400 * time.Millisecond
)

// ledger remembers the deliveries that were made, for some time. An owner looks
// up only events up to the highest one that its predecessors entered: what lies
// beyond was not made, or not entered.
type ledger struct {
	store   *jetstream.Store
	gateway string
	ttl     string
	bucket  string

	mu    sync.Mutex
	js    natsjs.JetStream
	bound bool // the bucket is known to be there
	epoch uint64
	// until is the highest sequence entered before this epoch; highest is also
	// what was entered since.
	until, highest uint64
}

// entry is what the ledger keeps of a delivery.
type entry struct {
	Event    string    `json:"event"`
	Sequence uint64    `json:"sequence"`
	Highest  uint64    `json:"highest"`
	Epoch    uint64    `json:"epoch"`
	Note     string    `json:"note,omitempty"`
	Time     time.Time `json:"time"`
}

func newLedger(store *jetstream.Store, gateway string, ttl time.Duration) *ledger {
	return &ledger{
		store: store, gateway: gateway, bucket: store.Name() + "__deliveries",
		ttl: strconv.FormatInt(int64(ttl/time.Second), 10),
	}
}

// subject is an entry's. Event ids may hold what no key may.
func (l *ledger) subject(eventID string) string {
	sum := sha256.Sum256([]byte(eventID))
	return l.prefix() + base64.RawURLEncoding.EncodeToString(sum[:16])
}

func (l *ledger) prefix() string { return "$KV." + l.bucket + "." + l.gateway + "." }

// find returns the entry of an event that was delivered.
func (l *ledger) find(ctx context.Context, e dispatch.Event) (entry, bool, error) {
	if err := l.ready(ctx); err != nil {
		return entry{}, false, err
	}
	until, err := l.open(ctx, e.Epoch)
	if err != nil || e.Sequence > until || mutate.On(mutate.NoLedger) {
		return entry{}, false, err
	}
	found, err := l.last(ctx, l.subject(e.EventID))
	if errors.Is(err, wire.ErrNotFound) {
		return entry{}, false, nil
	}
	return found, err == nil, err
}

// open learns, once an epoch, how far the predecessors came.
func (l *ledger) open(ctx context.Context, epoch uint64) (until uint64, err error) {
	// All deliveries wait for it.
	ctx, cancel := context.WithTimeout(ctx, jetstream.AttemptTimeoutDefault)
	defer cancel()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.epoch == epoch {
		return l.until, nil
	}
	found, err := l.last(ctx, l.prefix()+">")
	if err != nil && !errors.Is(err, wire.ErrNotFound) {
		return 0, err
	}
	until = found.Highest
	if err == nil && found.Epoch+1 != epoch {
		// The last entry is not of the last owner: that one made none, or one before
		// it, which did not know yet, made its last one later. All there is may have
		// been delivered.
		head, err := wire.LeaderLast(ctx, l.store.Conn(), l.store.Name(), wire.Everything)
		if err != nil {
			return 0, err
		}
		until = max(until, head.Sequence)
	}
	l.epoch, l.until, l.highest = epoch, until, max(l.highest, found.Highest)
	return l.until, nil
}

// last asks the leader: what was entered must be found. A missing bucket has no
// entries.
func (l *ledger) last(ctx context.Context, subject string) (entry, error) {
	ctx, cancel := context.WithTimeout(ctx, jetstream.AttemptTimeoutDefault)
	defer cancel()
	m, err := wire.LeaderLast(ctx, l.store.Conn(), "KV_"+l.bucket, subject)
	if wire.Number(err) == wire.CodeStreamNotFound {
		return entry{}, wire.ErrNotFound
	}
	if err != nil {
		return entry{}, err
	}
	e, err := decodeEntry(m.Data)
	if err != nil {
		return entry{}, fmt.Errorf("ledger entry %q: %w", subject, err)
	}
	return e, nil
}

// decodeEntry reads an entry, which whoever may write the bucket may have written.
func decodeEntry(data []byte) (e entry, err error) {
	if err := json.Unmarshal(data, &e); err != nil {
		return entry{}, err
	}
	return e, nil
}

// put enters a delivery that was made.
func (l *ledger) put(ctx context.Context, e dispatch.Event, d Delivery) error {
	var err error
	for range ledgerAttempts {
		if err = l.try(ctx, e, d); err == nil {
			return nil
		}
	}
	return err
}

func (l *ledger) try(ctx context.Context, e dispatch.Event, d Delivery) error {
	ctx, cancel := context.WithTimeout(ctx, jetstream.AttemptTimeoutDefault)
	defer cancel()
	if err := l.ensure(ctx); err != nil {
		return err
	}
	subject := l.subject(e.EventID)
	err := wire.Watched(ctx, l.store.Conn(), func(s string) bool { return s == subject }, func(ctx context.Context) error {
		return l.enter(ctx, e, d)
	})
	if err == nil || ctx.Err() != nil {
		return err
	}
	if errors.Is(err, natsjs.ErrNoStreamResponse) || errors.Is(err, nats.ErrNoResponders) {
		l.mu.Lock()
		l.bound = false // somebody deleted the bucket
		l.mu.Unlock()
	}
	return err
}

// enter sends an entry until one of them is acknowledged, whichever.
func (l *ledger) enter(ctx context.Context, e dispatch.Event, d Delivery) error {
	again := time.NewTicker(ledgerResend)
	defer again.Stop()
	var before []natsjs.PubAckFuture
	for {
		sent, err := l.send(e, d)
		if err != nil {
			return err
		}
		select {
		case <-sent.Ok():
			return nil
		case err := <-sent.Err():
			return err
		case <-again.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		before = append(before, sent)
		for _, earlier := range before {
			select {
			case <-earlier.Ok():
				return nil
			default:
			}
		}
	}
}

// send sends an entry and does not wait. Entries must be stored in the order in
// which they learn of the highest one: the last one is believed.
func (l *ledger) send(e dispatch.Event, d Delivery) (natsjs.PubAckFuture, error) { //nolint:ireturn // there is no other
	l.mu.Lock()
	defer l.mu.Unlock()
	l.highest = max(l.highest, e.Sequence)
	data, err := json.Marshal(entry{
		Event: e.EventID, Sequence: e.Sequence, Highest: l.highest, Epoch: e.Epoch, Note: *d.note, Time: time.Now().UTC(),
	})
	if err != nil {
		return nil, err
	}
	msg := nats.NewMsg(l.subject(e.EventID))
	msg.Data, msg.Header = data, nats.Header{natsjs.MsgTTLHeader: []string{l.ttl}}
	// Tried again by us, with what is known by then.
	return l.js.PublishMsgAsync(msg, natsjs.WithRetryAttempts(0))
}

// ready makes sure that deliveries can be entered, before one is made.
func (l *ledger) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, jetstream.AttemptTimeoutDefault)
	defer cancel()
	return l.ensure(ctx)
}

// ensure makes the bucket unless it is there. The helpers for buckets cannot set a
// time to live for each message without leaving a marker for each.
func (l *ledger) ensure(ctx context.Context) error {
	l.mu.Lock()
	bound := l.bound
	l.mu.Unlock()
	if bound {
		return nil
	}
	js, err := natsjs.New(l.store.Conn(), natsjs.WithPublishAsyncTimeout(jetstream.AttemptTimeoutDefault))
	if err != nil {
		return err
	}
	err = wire.API(ctx, l.store.Conn(), "KV_"+l.bucket, func(ctx context.Context) error {
		err := l.look(ctx, js)
		if errors.Is(err, natsjs.ErrStreamNotFound) {
			_, err = js.CreateStream(ctx, natsjs.StreamConfig{
				Name: "KV_" + l.bucket, Subjects: []string{"$KV." + l.bucket + ".>"},
				Description: "Rossby: deliveries of gateways", MaxMsgsPerSubject: 1, Discard: natsjs.DiscardNew,
				Storage: natsjs.FileStorage, Replicas: l.store.Replicas(), AllowRollup: true, DenyDelete: true,
				AllowDirect: true, AllowMsgTTL: true,
			})
			if errors.Is(err, natsjs.ErrStreamNameAlreadyInUse) {
				err = nil
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("bucket %q: %w", l.bucket, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bound = true
	if l.js == nil {
		l.js = js
	}
	return nil
}

// look asks for the bucket, again and again: who is asked while there is no leader never
// answers.
func (l *ledger) look(ctx context.Context, js natsjs.JetStream) error {
	for wait := ledgerResend; ; wait *= 2 {
		once, cancel := context.WithTimeout(ctx, wait)
		_, err := js.Stream(once, "KV_"+l.bucket)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return err
		}
	}
}
