package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/gateway/cloudevent"
	"github.com/rossby-go/rossby/gateway/webhook"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// hostileConcurrency is how many deliveries a gateway has under way.
const hostileConcurrency = 16

// hostileOrders is the number of aggregates; all of this is less under -short, as with
// the race detector.
func hostileOrders() int {
	if testing.Short() {
		return 150
	}
	return 500
}

// hostileEvents is how many events the service gets.
func hostileEvents() int {
	if testing.Short() {
		return 1500
	}
	return 20_000
}

// hostileRounds is how often an owner ends.
func hostileRounds() int {
	if testing.Short() {
		return 4
	}
	return 8
}

// childEnv holds, as JSON, what a gateway process needs.
const childEnv = "ROSSBY_GATEWAY_CHILD"

type childConfig struct {
	URL   string `json:"url"`
	Store string `json:"store"`
	Hook  string `json:"hook"`
	// Patient is a gateway that no slow machine makes deliver twice.
	Patient bool `json:"patient"`
}

// limits are how long a call may take and the lease lasts.
func (c childConfig) limits() (timeout, ttl time.Duration) {
	if c.Patient {
		return natstest.Patience, 30 * time.Second
	}
	return 500 * time.Millisecond, time.Second
}

const hookSecret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

// child runs a gateway until it is told to stop, or killed.
func child() int {
	var c childConfig
	if err := json.Unmarshal([]byte(os.Getenv(childEnv)), &c); err != nil {
		slog.New(slog.NewTextHandler(os.Stderr, nil)).Error("child", "error", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	nc, err := nats.Connect(c.URL, nats.MaxReconnects(-1), nats.ReconnectBufSize(-1), nats.ReconnectWait(50*time.Millisecond),
		nats.Timeout(natstest.Patience), nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	if err != nil {
		log.Error("connect", "error", err)
		return 1
	}
	defer nc.Close()
	patient, cancel := context.WithTimeout(ctx, natstest.Patience)
	defer cancel()
	store, err := jetstream.Attach(patient, nc, c.Store)
	if err != nil {
		log.Error("attach", "error", err)
		return 1
	}
	timeout, ttl := c.limits()
	hook, err := webhook.New(webhook.Config{
		URL: c.Hook, InsecureHTTP: true, AllowNetworks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Secrets: []string{hookSecret}, Timeout: timeout, MaxResponse: 4 << 10,
	})
	if err != nil {
		log.Error("webhook", "error", err)
		return 1
	}
	g, err := gateway.New(store, "hostile", gateway.Config{
		Start: jetstream.FromBeginning(), Concurrency: hostileConcurrency, MaxUnrecorded: 256, TTL: ttl, Timeout: max(timeout, gateway.TimeoutDefault),
		MinBackoff: 2 * time.Millisecond, MaxBackoff: 50 * time.Millisecond, Logger: log,
		Limits: gateway.Limits{BreakerCooldown: 100 * time.Millisecond},
	}, gateway.OnAll(events, hook.Deliver))
	if err != nil {
		log.Error("gateway", "error", err)
		return 1
	}
	if err := g.Run(ctx); err != nil {
		log.Error("run", "error", err)
		return 1
	}
	return 0
}

// hostile is a web service that treats its callers as badly as it can, and honours
// keys.
type hostile struct {
	*httptest.Server

	t        *testing.T
	receiver *webhook.Receiver
	kind     bool

	mu      sync.Mutex
	rng     *rand.Rand
	effects map[string]int    // by key
	keys    map[string]string // by event
	last    map[string]uint64 // versions taken first, by aggregate
	calls   map[string]int    // by event, refused ones too
	taken   int
	// answered are the keys whose answer has been read, repeated the calls under such a
	// key.
	answered map[string]bool
	repeated int
	changed  chan struct{} // has an element when something was taken
}

// sentOn is the key of the last answer that was sent in full on a connection. When
// another request comes on it the answer was read: who gave up closes the connection.
type sentOn struct{ key string }

type connKey struct{}

func newHostile(t *testing.T, kind bool) *hostile {
	t.Helper()
	r, err := webhook.NewReceiver(webhook.ReceiverConfig{Secrets: []string{hookSecret}})
	if err != nil {
		t.Fatal(err)
	}
	h := &hostile{
		t: t, receiver: r, kind: kind, rng: rand.New(rand.NewPCG(1, 2)), effects: map[string]int{}, keys: map[string]string{},
		answered: map[string]bool{}, last: map[string]uint64{}, calls: map[string]int{}, changed: make(chan struct{}, 1),
	}
	h.Server = httptest.NewUnstartedServer(h)
	h.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, &sentOn{})
	}
	h.Start()
	t.Cleanup(h.Close)
	return h
}

// ServeHTTP draws what happens to a request.
func (h *hostile) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	conn, _ := r.Context().Value(connKey{}).(*sentOn)
	if conn.key != "" {
		h.mu.Lock()
		h.answered[conn.key] = true
		h.mu.Unlock()
		conn.key = ""
	}
	m, err := h.receiver.Verify(r)
	if errors.Is(err, webhook.ErrSignature) || errors.Is(err, webhook.ErrUnsigned) {
		h.t.Errorf("a request that does not verify: %v", err)
	}
	if err != nil {
		return // its sender died
	}
	e, err := m.Event(r.Header)
	if err != nil {
		h.t.Errorf("a request that is no event: %v", err)
		return
	}
	h.mu.Lock()
	h.calls[e.ID]++
	draw := h.rng.IntN(1000)
	h.mu.Unlock()
	if h.kind {
		draw = 1000
	}
	switch {
	case draw < 30:
		w.WriteHeader(http.StatusInternalServerError)
	case draw < 40:
		w.Header().Set("Retry-After", "0")
		w.WriteHeader(http.StatusTooManyRequests)
	case draw < 42: // longer than anybody waits, and not taken
		<-r.Context().Done()
	case draw < 62: // taken, and the answer is lost
		h.take(e, m.ID)
		if conn, _, err := http.NewResponseController(w).Hijack(); err == nil {
			_ = conn.Close()
		}
	case draw < 64: // taken, and the answer is late
		h.take(e, m.ID)
		<-r.Context().Done()
	case draw < 68: // a body without an end
		h.take(e, m.ID)
		w.WriteHeader(http.StatusOK)
		for line := strings.Repeat("x", 1<<14); r.Context().Err() == nil; {
			if _, err := io.WriteString(w, line); err != nil {
				return
			}
		}
	case draw < 69: // a body that never comes
		h.take(e, m.ID)
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	default:
		h.take(e, m.ID)
		w.WriteHeader(http.StatusNoContent)
		conn.key = m.ID
	}
}

// take has an effect, once a key.
func (h *hostile) take(e cloudevent.Event, key string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if before, ok := h.keys[e.ID]; ok && before != key {
		h.t.Errorf("event %s came under %s and %s", e.ID, before, key)
	}
	h.keys[e.ID] = key
	if h.answered[key] {
		h.repeated++
	}
	if h.effects[key] > 0 {
		return
	}
	h.effects[key]++
	h.taken++
	if e.Version != h.last[e.Subject]+1 {
		h.t.Errorf("%s: version %d was taken after %d", e.Subject, e.Version, h.last[e.Subject])
	}
	h.last[e.Subject] = e.Version
	select {
	case h.changed <- struct{}{}:
	default:
	}
}

// reaches waits until so many events have been taken.
func (h *hostile) reaches(n int) bool {
	// Bounded by progress: a slow machine may take its time, a stuck gateway may not.
	stuck := time.NewTimer(natstest.Patience)
	defer stuck.Stop()
	for {
		h.mu.Lock()
		taken := h.taken
		h.mu.Unlock()
		if taken >= n {
			return true
		}
		select {
		case <-h.changed:
			stuck.Reset(natstest.Patience)
		case <-stuck.C:
			h.t.Errorf("stuck at %d of %d", taken, n)
			return false
		}
	}
}

// process is a gateway in a process of its own.
type process struct {
	cmd *exec.Cmd
}

func spawn(t *testing.T, c childConfig) *process {
	t.Helper()
	config, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	p := &process{cmd: exec.Command(os.Args[0])}
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(config))
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p.cmd.Stderr = os.Stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *process) end(sig os.Signal) error {
	_ = p.cmd.Process.Signal(sig)
	return p.cmd.Wait()
}

// fill stores the events, each aggregate's in order.
func fill(t *testing.T, store *jetstream.Store, total int) {
	t.Helper()
	var wg sync.WaitGroup
	const writers = 8
	for w := range writers {
		wg.Go(func() {
			heads := map[string]jetstream.Head{}
			for i := range total {
				order := i % hostileOrders()
				if order%writers != w {
					continue // another writer's
				}
				id := "o" + strconv.Itoa(order)
				e, err := events.Encode(paid{int64(i)}, store.Codec())
				if err != nil {
					t.Error(err)
					return
				}
				head, err := store.Append(t.Context(), jetstream.Write{
					Type: "order", ID: id, After: heads[id], Decisions: []jetstream.Decision{{Events: []jetstream.EventData{e}}},
				})
				if err != nil {
					t.Error(err)
					return
				}
				heads[id] = head
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// A service that fails, resets connections after it has taken a request, answers
// without an end or never; four processes of one gateway, of which one is killed or
// stopped every now and then; on R3 leaders that resign. Each event is taken, those
// of an aggregate in order, under one key each; a service that honours keys has one
// effect of each.
func TestHostileService(t *testing.T) {
	t.Parallel()
	t.Run("R1", func(t *testing.T) {
		t.Parallel()
		url := natstest.Run(t).URL()
		store := open(t, natstest.Conn(t, url), natstest.Name(t))
		fill(t, store, hostileEvents())
		torment(t, store, url, func(int) {})
	})
	t.Run("R3", func(t *testing.T) {
		t.Parallel()
		c := natstest.RunCluster(t)
		store, err := jetstream.Open(t.Context(), c.Conn(t), jetstream.Config{Name: natstest.Name(t), Replicas: 3})
		if err != nil {
			t.Fatal(err)
		}
		fill(t, store, hostileEvents())
		torment(t, store, strings.Join(c.URLs(), ","), func(round int) {
			switch round % 3 {
			case 0:
				c.StepDown(t, store.Name())
			case 1:
				c.StepDown(t, "KV_"+store.Name()+"__followers")
			case 2:
				c.StepDownConsumer(t, store.Name(), "hostile")
			}
		})
	})
}

func torment(t *testing.T, store *jetstream.Store, url string, disturb func(round int)) {
	t.Helper()
	const instances = 4
	rounds := hostileRounds()
	h := newHostile(t, false)
	c := childConfig{URL: url, Store: store.Name(), Hook: h.URL}
	children := make([]*process, instances)
	for i := range children {
		children[i] = spawn(t, c)
	}
	t.Cleanup(func() {
		for _, p := range children {
			_ = p.end(syscall.SIGKILL)
		}
	})
	kills := 0
	for round := range rounds {
		if !h.reaches(hostileEvents() * (round + 1) / (rounds + 1)) {
			return
		}
		disturb(round)
		i := ownerOf(t, store, children)
		sig := syscall.SIGKILL
		if round%4 == 3 {
			sig = syscall.SIGTERM
		} else {
			kills++
		}
		if err := children[i].end(sig); sig == syscall.SIGTERM && err != nil {
			t.Errorf("a graceful end: %v", err)
		}
		children[i] = spawn(t, c)
	}
	if !h.reaches(hostileEvents()) {
		return
	}
	var epoch uint64
	natstest.Retry(t, "the gateway has caught up", func(ctx context.Context) error {
		s, err := gateway.ReadStatus(ctx, store, "hostile")
		epoch = s.Epoch
		if err == nil && !s.CaughtUp {
			err = fmt.Errorf("lag %d", s.Lag)
		}
		return err
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	calls := 0
	for _, n := range h.calls {
		calls += n
	}
	if len(h.effects) != hostileEvents() || len(h.keys) != hostileEvents() || h.taken != hostileEvents() {
		t.Errorf("%d effects under %d keys of %d events", h.taken, len(h.effects), len(h.keys))
	}
	// What was delivered is not delivered again but for what was under way when an
	// owner ended: the ledger knows the rest of what the record does not.
	if most := int(epoch) * hostileConcurrency; h.repeated > most {
		t.Errorf("%d deliveries were made again over %d owners, allowed are %d", h.repeated, epoch, most)
	}
	t.Logf("%d events, %d calls, %d kills, %d owners, %d made again", hostileEvents(), calls, kills, epoch, h.repeated)
}

// ownerOf is the process that delivers, once one does; owners are named by host and
// process.
func ownerOf(t *testing.T, store *jetstream.Store, children []*process) int {
	t.Helper()
	owner := 0
	natstest.Retry(t, "an owner that lives", func(ctx context.Context) error {
		s, err := gateway.ReadStatus(ctx, store, "hostile")
		if err != nil {
			return err
		}
		for i, p := range children {
			if strings.Contains(s.Owner, fmt.Sprintf("/%d/", p.cmd.Process.Pid)) {
				owner = i
				return nil
			}
		}
		return fmt.Errorf("the owner is %q", s.Owner)
	})
	return owner
}

// Where nothing fails, each event is one call.
func TestOneCallEach(t *testing.T) {
	t.Parallel()
	total := hostileEvents()
	store, _, url := setup(t)
	fill(t, store, total)
	h := newHostile(t, true)
	p := spawn(t, childConfig{URL: url, Store: store.Name(), Hook: h.URL, Patient: true})
	t.Cleanup(func() {
		if err := p.end(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	})
	h.reaches(total)
	h.mu.Lock()
	defer h.mu.Unlock()
	for id, n := range h.calls {
		if n != 1 {
			t.Errorf("%s was called %d times", id, n)
		}
	}
}
