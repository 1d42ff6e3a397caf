package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

func TestStart(t *testing.T) {
	t.Parallel()
	store, repo, _ := setup(t)
	must(t, repo, "o1", place{1})
	must(t, repo, "o1", pay{[]int64{1}})
	middle := must(t, repo, "o1", pay{[]int64{2}})
	must(t, repo, "o1", pay{[]int64{3}})
	type running struct {
		got  chan int64
		want []int64
	}
	cases := map[string]struct {
		start jetstream.Start
		want  []int64
	}{
		"now":   {jetstream.FromNow(), []int64{4}},
		"from":  {jetstream.From(middle.Position), []int64{3, 4}},
		"begin": {jetstream.FromBeginning(), []int64{1, 2, 3, 4}},
	}
	all := make([]running, 0, len(cases))
	for name, c := range cases {
		r := running{make(chan int64, 10), c.want}
		cfg := config()
		cfg.Start = c.start
		g := newGateway(t, store, name, cfg, payments(func(_ context.Context, p post) error {
			r.got <- p.cents
			return nil
		}))
		run(t, g)
		active(t, g) // and knows where it begins
		all = append(all, r)
	}
	must(t, repo, "o1", pay{[]int64{4}})
	for _, r := range all {
		for _, want := range r.want {
			if got := received(t, r.got); got != want {
				t.Errorf("%d, want %d of %v", got, want, r.want)
			}
		}
	}
}

func TestConfigValidate(t *testing.T) {
	t.Parallel()
	if err := config().Validate(); err != nil {
		t.Error(err)
	}
	err := gateway.Config{
		Concurrency: -1, MaxBackoff: -1, MaxUnrecorded: -2, MinBackoff: -3, TTL: time.Millisecond, Timeout: -4, Version: -5,
	}.Validate()
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		t.Fatalf("%T %v", err, err)
	}
	fields := map[string]int{}
	for _, err := range joined.Unwrap() {
		if invalid, ok := errors.AsType[*jetstream.InvalidError](err); ok {
			fields[invalid.Field]++
		}
	}
	for _, field := range []string{
		"Start", "Concurrency", "MaxBackoff", "MaxUnrecorded", "MinBackoff", "TTL", "Timeout", "Version",
	} {
		if fields[field] != 1 {
			t.Errorf("%s %d times in %v", field, fields[field], err)
		}
	}
	for what, c := range map[string]struct {
		change func(*gateway.Config)
		field  string
	}{
		"no start":           {func(c *gateway.Config) { c.Start = jetstream.Start{} }, "Start"},
		"least above most":   {func(c *gateway.Config) { c.MinBackoff = c.MaxBackoff + 1 }, "MinBackoff"},
		"least above usual":  {func(c *gateway.Config) { c.MinBackoff, c.MaxBackoff = time.Hour, 0 }, "MinBackoff"},
		"most below usual":   {func(c *gateway.Config) { c.MinBackoff = 0 }, ""},
		"usual":              {func(c *gateway.Config) { c.MinBackoff, c.MaxBackoff, c.TTL = 0, 0, 0 }, ""},
		"a TTL less than 0":  {func(c *gateway.Config) { c.TTL = -1 }, "TTL"},
		"a version below 0":  {func(c *gateway.Config) { c.Version = -1 }, "Version"},
		"a timeout below 0":  {func(c *gateway.Config) { c.Timeout = -1 }, "Timeout"},
		"as short as it can": {func(c *gateway.Config) { c.MinBackoff, c.MaxBackoff = 1, 1 }, ""},
	} {
		cfg := config()
		c.change(&cfg)
		err := cfg.Validate()
		if invalid, ok := errors.AsType[*jetstream.InvalidError](err); ok != (c.field != "") || ok && invalid.Field != c.field {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	store, _, _ := setup(t)
	good := payments(func(context.Context, post) error { return nil })
	again := jetstream.NewSchema("order", jetstream.Event[paid]("paid"))
	broken := jetstream.NewSchema("Not A Name", jetstream.Event[paid]("paid"))
	for what, c := range map[string]struct {
		name     string
		handlers []gateway.Option
		want     string
	}{
		"name":        {"No Name", []gateway.Option{good}, "gateway name"},
		"no name":     {"", []gateway.Option{good}, "gateway name"},
		"no handlers": {"g", nil, "no handlers"},
		"two":         {"g", []gateway.Option{good, good}, "two handlers"},
		"foreign": {"g", []gateway.Option{
			gateway.On(events, func(context.Context, place, gateway.Delivery) error { return nil }),
		}, "not an event of schema"},
		"no schema": {"g", []gateway.Option{
			gateway.On(nil, func(context.Context, paid, gateway.Delivery) error { return nil }),
		}, "schema is nil"},
		"bad schema": {"g", []gateway.Option{
			gateway.On(broken, func(context.Context, paid, gateway.Delivery) error { return nil }),
		}, "Not A Name"},
		"two schemas": {"g", []gateway.Option{
			good, gateway.On(again, func(context.Context, paid, gateway.Delivery) error { return nil }),
		}, "two schemas"},
		"no function": {"g", []gateway.Option{gateway.On[paid](events, nil)}, "nil function"},
		"several":     {"g", []gateway.Option{good, good, gateway.On[placed](events, nil)}, "two handlers"},
	} {
		_, err := gateway.New(store, c.name, config(), c.handlers...)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", what, err)
		}
		if what == "several" && (err == nil || !strings.Contains(err.Error(), "nil function")) {
			t.Errorf("not all: %v", err)
		}
	}
	if _, err := gateway.New(nil, "g", config(), good); err == nil {
		t.Error("a nil store")
	}
	if _, err := gateway.New(store, "g", gateway.Config{}, good); err == nil || !strings.Contains(err.Error(), "Start") {
		t.Errorf("no start: %v", err)
	}
}

// An instance whose connection ends leaves its work to the one that stands by,
// which repeats no more than MaxUnrecorded.
func TestCrash(t *testing.T) {
	t.Parallel()
	store, repo, url := setup(t)
	const ids, most = 40, 3
	cfg := config()
	cfg.MaxUnrecorded, cfg.Concurrency, cfg.TTL = most, most, leaseShort
	dying := natstest.Conn(t, url)
	var (
		mu   sync.Mutex
		keys = map[string]int{}
		last post
	)
	note := func(p post) int {
		mu.Lock()
		defer mu.Unlock()
		keys[p.IdempotencyKey]++
		last = p
		return len(keys)
	}
	half := make(chan struct{})
	crash := sync.OnceFunc(func() { close(half) })
	closed := make(chan struct{})
	first := newGateway(t, open(t, dying, store.Name()), "crash", cfg, payments(func(_ context.Context, p post) error {
		if note(p) >= ids/2 {
			// Delivered, but nobody can be told.
			crash()
			<-closed
		}
		return nil
	}))
	dead := ends(t, first)
	active(t, first)
	second := newGateway(t, store, "crash", cfg, payments(func(_ context.Context, p post) error {
		note(p)
		return nil
	}))
	run(t, second)
	for n := range ids {
		must(t, repo, "o"+strconv.Itoa(n), place{1})
		must(t, repo, "o"+strconv.Itoa(n), pay{[]int64{1}})
	}
	received(t, half)
	// A slow machine may lose a lease, and then the other has taken over.
	if s := second.Status(); s.Epoch < 2 && s.State == first.Status().State {
		t.Errorf("both are %s", s.State)
	}
	dying.Close()
	close(closed)
	if err := received(t, dead); err == nil {
		t.Error("an instance without a connection ended without an error")
	}
	natstest.Eventually(t, "all is delivered", func() error {
		mu.Lock()
		defer mu.Unlock()
		if len(keys) < ids {
			return fmt.Errorf("%d of %d", len(keys), ids)
		}
		return nil
	})
	caughtUp(t, second)
	mu.Lock()
	defer mu.Unlock()
	repeated := 0
	for _, n := range keys {
		repeated += n - 1
	}
	if last.Epoch < 2 || repeated == 0 || repeated > most*int(last.Epoch-1) {
		t.Errorf("%d repeated, the last in epoch %d", repeated, last.Epoch)
	}
}

func TestOtherDefinition(t *testing.T) {
	t.Parallel()
	store, repo, _ := setup(t)
	got := make(chan string, 10)
	paidOnly := payments(func(_ context.Context, p post) error {
		got <- p.Name
		return nil
	})
	old := newGateway(t, store, "mail", config(), paidOnly)
	stop := run(t, old)
	active(t, old)
	stop()
	handlers := []gateway.Option{paidOnly, gateway.On(events, func(_ context.Context, _ refunded, d gateway.Delivery) error {
		got <- d.Name
		return nil
	})}
	err := received(t, ends(t, newGateway(t, store, "mail", config(), handlers...)))
	if err == nil || !strings.Contains(err.Error(), `"mail"`) || !strings.Contains(strings.ToLower(err.Error()), "version") {
		t.Errorf("another definition: %v", err)
	}
	cfg := config()
	cfg.Version = 2
	run(t, newGateway(t, store, "mail", cfg, handlers...))
	must(t, repo, "o1", place{1})
	must(t, repo, "o1", refund{0})
	if name := received(t, got); name != "refunded" {
		t.Error(name)
	}
	if err := received(t, ends(t, old)); err == nil || !strings.Contains(err.Error(), "version") {
		t.Errorf("the old version: %v", err)
	}
}

// An event that only a newer program knows is not passed over.
func TestUnknownEvent(t *testing.T) {
	t.Parallel()
	store, repo, _ := setup(t)
	got := make(chan post, 10)
	g := newGateway(t, store, "older", config(), payments(func(_ context.Context, p post) error {
		got <- p
		return nil
	}))
	end := ends(t, g)
	must(t, repo, "o1", place{1})
	must(t, repo, "o1", pay{[]int64{1}})
	received(t, got)
	type (
		shipped struct{ To string }
		ship    struct{ To string }
		newer   struct{}
	)
	schema := jetstream.NewSchema("order", jetstream.Event[placed]("placed"), jetstream.Event[shipped]("shipped"),
		jetstream.Event[paid]("paid"), jetstream.Event[refunded]("refunded"))
	typ := aggregate.New[newer](schema,
		aggregate.Apply(func(*newer, placed, jetstream.Meta) {}), aggregate.Apply(func(*newer, paid, jetstream.Meta) {}),
		aggregate.Apply(func(*newer, shipped, jetstream.Meta) {}), aggregate.Apply(func(*newer, refunded, jetstream.Meta) {}),
		aggregate.Handle("ship", func(_ newer, c ship, _ aggregate.Decision) ([]any, error) {
			return []any{shipped(c), paid{2}}, nil
		}),
	)
	deploy, err := aggregate.NewRepository(store, typ, aggregate.RepositoryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := deploy.Execute(t.Context(), "o1", ship{"Bergen"}); err != nil {
		t.Fatal(err)
	}
	err = received(t, end)
	if !errors.Is(err, jetstream.ErrUnknownEvent) || !strings.Contains(err.Error(), "shipped") {
		t.Fatalf("ended with %v", err)
	}
	if len(got) > 0 {
		t.Errorf("delivered beyond it: %+v", <-got)
	}
	// The newer program goes on there.
	run(t, newGateway(t, store, "older", config(),
		gateway.On(schema, func(_ context.Context, e paid, d gateway.Delivery) error {
			got <- post{d, e.Cents}
			return nil
		})))
	if p := received(t, got); p.cents != 2 || p.Version != 4 {
		t.Errorf("%+v", p)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	store, repo, _ := setup(t)
	if _, err := gateway.ReadStatus(t.Context(), store, "parks"); !errors.Is(err, gateway.ErrNeverRan) {
		t.Errorf("no follower at all: %v", err)
	}
	g := newGateway(t, store, "parks", config(), payments(func(_ context.Context, p post) error {
		if p.ID == "bad" {
			return gateway.Permanent(errTest)
		}
		return nil
	}))
	if s := g.Status(); s.State != "stopped" || s.Name != "parks" {
		t.Errorf("before: %+v", s)
	}
	stop := run(t, g)
	for _, id := range []string{"good", "bad"} {
		must(t, repo, id, place{1})
		must(t, repo, id, pay{[]int64{1}})
	}
	if s := parked(t, g, 1); s.State != "active" || s.Epoch != 1 || s.Version != 1 || s.CaughtUp {
		t.Errorf("local: %+v", s)
	}
	natstest.Retry(t, "the servers know", func(ctx context.Context) error {
		s, err := gateway.ReadStatus(ctx, store, "parks")
		if err == nil && (s.State != "active" || len(s.Blocked) != 1 || !s.Blocked[0].Parked ||
			!strings.Contains(s.Blocked[0].Error, errTest.Error())) {
			err = fmt.Errorf("%+v", s)
		}
		return err
	})
	stop()
	natstest.Retry(t, "the servers know", func(ctx context.Context) error {
		s, err := gateway.ReadStatus(ctx, store, "parks")
		if err == nil && (s.State != "stopped" || s.Owner != "" || len(s.Blocked) != 1) {
			t.Errorf("after: %+v", s)
		}
		return err
	})
	if _, err := gateway.ReadStatus(t.Context(), store, "never"); !errors.Is(err, gateway.ErrNeverRan) {
		t.Error(err)
	}
	if _, err := gateway.ReadStatus(t.Context(), store, "no name"); err == nil || errors.Is(err, gateway.ErrNeverRan) {
		t.Errorf("not a name: %v", err)
	}
}
