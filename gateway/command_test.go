package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/internal/protocol"
	"github.com/rossby-go/rossby/jetstream"
)

// serve runs a command service, and returns when it answers.
func serve(t testing.TB, store *jetstream.Store, repo *aggregate.Repository[order]) {
	t.Helper()
	s, err := aggregate.NewService(repo, aggregate.ServiceConfig{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	run(t, s)
	natstest.Retry(t, "the service answers", func(ctx context.Context) error {
		_, err := store.Conn().RequestWithContext(ctx, protocol.CommandSubject(store.Name(), "order", "refund", "nobody"), []byte("{}"))
		return err
	})
}

// However often the handler runs, its command is executed once, and what was
// refused stays refused.
func TestCommand(t *testing.T) {
	t.Parallel()
	store, repo, url := setup(t)
	serve(t, store, repo)
	for _, id := range []string{"from", "to", "poor", "shop"} {
		must(t, repo, id, place{1})
	}
	type outcome struct{ rejected, absent, exists, invalid error }
	outcomes := make(chan outcome, 20)
	var settled atomic.Bool
	handler := payments(func(ctx context.Context, p post) error {
		if p.ID != "from" {
			return nil
		}
		o := outcome{
			rejected: p.Command(ctx, gateway.Command{Type: "order", ID: "poor", Name: "refund", Body: refund{5}}),
			absent:   p.Command(ctx, gateway.Command{Type: "order", ID: "absent", Name: "pay", Body: pay{[]int64{1}}}),
			exists:   p.Command(ctx, gateway.Command{Type: "order", ID: "shop", Name: "place", Body: place{1}}),
			invalid:  p.Command(ctx, gateway.Command{Type: "order", ID: "to", Name: "refund", Body: map[string]int{"misspelt": 1}}),
		}
		for _, err := range []error{o.rejected, o.absent, o.exists, o.invalid} {
			if _, decided := errors.AsType[*gateway.CommandError](err); err != nil && !decided {
				return err // a service that is slow has not decided: the next attempt asks again
			}
		}
		for _, id := range []string{"to", "shop"} {
			if err := p.Command(ctx, gateway.Command{Type: "order", ID: id, Name: "pay", Body: pay{[]int64{p.cents}}}); err != nil {
				return err
			}
		}
		select {
		case outcomes <- o:
		default: // two are enough
		}
		if settled.Load() {
			return nil
		}
		return errTest
	})
	stop := run(t, newGateway(t, store, "refunds", config(), handler))
	cause := must(t, repo, "from", pay{[]int64{7}}, aggregate.Correlation("conv"))
	check := func(o outcome) {
		t.Helper()
		for _, c := range []struct {
			err                         error
			subject, kind, code, reason string
		}{
			{o.rejected, "refund.poor", "rejected", "too-much", "5 of 0"},
			{o.absent, "pay.absent", "not-found", "not-found", ""},
			{o.exists, "place.shop", "exists", "exists", ""},
			{o.invalid, "refund.to", "invalid", "invalid", "misspelt"},
		} {
			refused, ok := errors.AsType[*gateway.CommandError](c.err)
			if !ok || refused.Subject != store.Name()+".command.order."+c.subject || refused.Kind != c.kind ||
				refused.Code != c.code || !strings.Contains(refused.Reason, c.reason) {
				t.Errorf("%s: %T %v", c.subject, c.err, c.err)
			}
			if ok && (!strings.Contains(refused.Error(), refused.Subject) || !strings.Contains(refused.Error(), refused.Reason)) {
				t.Errorf("text %q", refused)
			}
		}
	}
	check(received(t, outcomes))
	// All but the misspelt one would be accepted now.
	must(t, repo, "poor", pay{[]int64{100}})
	must(t, repo, "absent", place{1})
	check(received(t, outcomes))
	stop()
	elsewhere := open(t, natstest.Conn(t, url), store.Name())
	for len(outcomes) > 0 {
		<-outcomes
	}
	g := newGateway(t, elsewhere, "refunds", config(), handler)
	run(t, g)
	check(received(t, outcomes))
	settled.Store(true)
	caughtUp(t, g)
	for id, want := range map[string]order{"to": {7}, "shop": {7}, "poor": {100}, "absent": {0}} {
		if snap, err := repo.Load(t.Context(), id); err != nil || snap.State != want {
			t.Errorf("%s: %+v, %v", id, snap, err)
		}
	}
	for e, err := range repo.History(t.Context(), "to") {
		if err != nil {
			t.Fatal(err)
		}
		if e.Name == "paid" && (e.Causation != cause.Events[0].EventID || e.Correlation != "conv") {
			t.Errorf("%+v", e)
		}
	}
}

// Another gateway's command is another command.
func TestCommandOfTwoGateways(t *testing.T) {
	t.Parallel()
	store, repo, _ := setup(t)
	serve(t, store, repo)
	must(t, repo, "from", place{1})
	must(t, repo, "to", place{1})
	done := make(chan string, 10)
	for _, name := range []string{"one", "two"} {
		run(t, newGateway(t, store, name, config(), payments(func(ctx context.Context, p post) error {
			if p.ID != "from" {
				return nil
			}
			if err := p.Command(ctx, gateway.Command{Type: "order", ID: "to", Name: "pay", Body: pay{[]int64{1}}}); err != nil {
				return err
			}
			done <- name
			return nil
		})))
	}
	must(t, repo, "from", pay{[]int64{1, 1}})
	for range 4 {
		received(t, done)
	}
	if snap, err := repo.Load(t.Context(), "to"); err != nil || snap.State.Paid != 4 {
		t.Errorf("%+v, %v", snap, err)
	}
}

// What is no decision of the service is left to the next attempt.
func TestCommandTroubles(t *testing.T) {
	t.Parallel()
	store, repo, url := setup(t)
	answers := []struct {
		body any
		want string
	}{
		{body: protocol.ErrorBody{Kind: protocol.KindBusy, Reason: "full"}, want: "busy: full"},
		{body: protocol.ErrorBody{Kind: protocol.KindUnavailable, Reason: "gone"}, want: "unavailable: gone"},
		{body: protocol.ErrorBody{Kind: protocol.KindUnknown}, want: "unknown"},
		{body: protocol.ErrorBody{Kind: protocol.KindInternal}, want: "internal"},
		{body: protocol.ErrorBody{Kind: "of-the-future", Reason: "who knows"}, want: "of-the-future: who knows"},
		{body: protocol.ErrorBody{}, want: "command"},
		{body: "no object", want: "as the framework says"},
	}
	failures := make(chan error, 10)
	g := newGateway(t, store, "troubles", config(), payments(func(ctx context.Context, p post) error {
		if p.ID != "from" {
			return nil
		}
		err := p.Command(ctx, gateway.Command{Type: "order", ID: "to", Name: "pay", Body: pay{[]int64{1}}})
		failures <- err
		return err
	}))
	run(t, g)
	must(t, repo, "from", place{1})
	must(t, repo, "to", place{1})
	// Nobody serves.
	must(t, repo, "from", pay{[]int64{1}})
	if err := received(t, failures); !errors.Is(err, nats.ErrNoResponders) {
		t.Fatal(err)
	}
	seen := make(chan nats.Header, len(answers))
	next := 0
	server := natstest.Conn(t, url)
	_, err := server.Subscribe(protocol.CommandSubject(store.Name(), "order", "pay", "*"), func(m *nats.Msg) {
		if next == len(answers) {
			_ = m.Respond([]byte("{}")) // who hears nothing fails the test
			return
		}
		data, err := json.Marshal(answers[next].body)
		if err != nil {
			t.Error(err)
		}
		next++
		reply := nats.NewMsg(m.Reply)
		reply.Data = data
		reply.Header.Set(micro.ErrorCodeHeader, "500")
		reply.Header.Set(micro.ErrorHeader, "as the framework says")
		seen <- m.Header
		_ = m.RespondMsg(reply)
	})
	if err != nil {
		t.Fatal(err)
	}
	var trigger string
	for _, a := range answers {
		err := received(t, failures)
		for errors.Is(err, nats.ErrNoResponders) {
			err = received(t, failures)
		}
		if refused, ok := errors.AsType[*gateway.CommandError](err); ok || err == nil || !strings.Contains(err.Error(), a.want) {
			t.Errorf("%q: %v %v", a.want, err, refused)
		}
		h := received(t, seen)
		if trigger == "" {
			trigger = h.Get(protocol.HeaderTrigger)
		}
		if h.Get(protocol.HeaderTrigger) != trigger || !strings.HasPrefix(trigger, "troubles ") {
			t.Errorf("trigger %q, first %q", h.Get(protocol.HeaderTrigger), trigger)
		}
		if left, err := time.ParseDuration(h.Get(protocol.HeaderDeadline)); err != nil || left <= 0 || left > gateway.TimeoutDefault {
			t.Errorf("deadline %q: %v", h.Get(protocol.HeaderDeadline), err)
		}
	}
	if err := received(t, failures); err != nil {
		t.Errorf("at last: %v", err)
	}
	caughtUp(t, g)
}

func TestCommandInvalid(t *testing.T) {
	t.Parallel()
	store, repo, _ := setup(t)
	done := make(chan map[string]error, 1)
	run(t, newGateway(t, store, "invalid", config(), payments(func(ctx context.Context, p post) error {
		done <- map[string]error{
			"aggregate type": p.Command(ctx, gateway.Command{Type: "Or der", ID: "o1", Name: "pay", Body: pay{}}),
			"command name":   p.Command(ctx, gateway.Command{Type: "order", ID: "o1", Name: "pay.now", Body: pay{}}),
			"aggregate id":   p.Command(ctx, gateway.Command{Type: "order", ID: "*", Name: "pay", Body: pay{}}),
			"command body":   p.Command(ctx, gateway.Command{Type: "order", ID: "o1", Name: "pay", Body: func() {}}),
		}
		return nil
	})))
	must(t, repo, "o1", place{1})
	must(t, repo, "o1", pay{[]int64{1}})
	for field, err := range received(t, done) {
		if invalid, ok := errors.AsType[*jetstream.InvalidError](err); !ok || invalid.Field != field {
			t.Error(fmt.Errorf("%s: %w", field, err))
		}
	}
}
