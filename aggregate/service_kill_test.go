package aggregate_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// How this test binary becomes a command service.
const (
	servingEnv      = "ROSSBY_TEST_SERVING"
	servingEnvStore = "ROSSBY_TEST_SERVING_STORE"
)

// serving is a program with a command service, which runs until it is killed, or
// until who started it is gone.
func serving(url, name string) error {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	nc, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectBufSize(-1), nats.ReconnectWait(20*time.Millisecond),
		nats.Timeout(natstest.Patience))
	if err != nil {
		return err
	}
	defer nc.Close()
	store, err := jetstream.Open(ctx, nc, jetstream.Config{Name: name})
	if err != nil {
		return err
	}
	repo, err := aggregate.NewRepository(store, accounts, aggregate.RepositoryConfig{})
	if err != nil {
		return err
	}
	service, err := aggregate.NewService(repo, aggregate.ServiceConfig{Logger: quiet})
	if err != nil {
		return err
	}
	go func() {
		select {
		case <-service.Ready():
			_, _ = os.Stdout.WriteString("serving\n")
		case <-ctx.Done():
		}
	}()
	return service.Run(ctx)
}

// process is such a program.
type process struct {
	cmd   *exec.Cmd
	stdin io.Closer
}

// startServing starts one, and returns when it serves.
func startServing(t testing.TB, url, store string) (*process, error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), self)
	cmd.Env = append(os.Environ(), servingEnv+"="+url, servingEnvStore+"="+store)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd, in}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || strings.TrimSpace(line) != "serving" {
		p.kill()
		return nil, fmt.Errorf("a service did not come up: %q %w", line, err)
	}
	return p, nil
}

// kill is kill -9.
func (p *process) kill() {
	if p == nil {
		return // it did not come up
	}
	_ = p.cmd.Process.Kill()
	_ = p.stdin.Close()
	_ = p.cmd.Wait()
}

// Clients that repeat their commands under one id, while the services are killed
// and, where there is one, the stream's leader resigns: nothing happens twice, and
// nothing that was answered is lost.
func TestServicesAreKilled(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		replicas int
		// start gives the servers' address, and what else goes wrong.
		start func(t *testing.T) (url string, disturb func(stream string))
	}{
		"R1": {1, func(t *testing.T) (string, func(string)) {
			t.Helper()
			return natstest.Run(t).URL(), func(string) {}
		}},
		"R3": {3, func(t *testing.T) (string, func(string)) {
			t.Helper()
			c := natstest.RunCluster(t)
			return strings.Join(c.URLs(), ","), func(stream string) { c.StepDown(t, stream) }
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, disturb := c.start(t)
			killed(t, url, c.replicas, disturb)
		})
	}
}

func killed(t *testing.T, url string, replicas int, disturb func(stream string)) {
	t.Helper()
	const count, clients, processes, least = 3, 12, 2, 8
	each := times(40, 12)
	nc := natstest.Conn(t, url)
	store := newStore(t, nc, jetstream.Config{Replicas: replicas})
	repo := newRepo(t, store)
	for i := range count {
		must(t, repo, strconv.Itoa(i), open{0})
	}
	running := make([]*process, processes)
	for i := range running {
		p, err := startServing(t, url, store.Name())
		if err != nil {
			t.Fatal(err)
		}
		running[i] = p
	}
	done, served := make(chan struct{}), make(chan struct{}, clients)
	var kills atomic.Int64
	killer := make(chan struct{})
	go func() {
		defer close(killer)
		for n := 0; ; n++ {
			i := n % processes
			running[i].kill()
			kills.Add(1)
			disturb(store.Name())
			p, err := startServing(t, url, store.Name())
			if err != nil {
				t.Error(err)
			}
			running[i] = p
			// Each has something to do before the next one dies.
			for range clients {
				select {
				case <-served:
					continue
				case <-done:
				}
				for _, p := range running {
					p.kill()
				}
				return
			}
		}
	}()

	var credits [count]atomic.Int64
	var unknown, duplicates atomic.Int64
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			// What was given up gets more time.
			nc, targets := natstest.Conn(t, url), make([]*aggregate.Client, 6)
			for i := range targets {
				var err error
				targets[i], err = aggregate.NewClient(nc, store.Name(), accounts, aggregate.ClientConfig{
					AttemptTimeout: 150 * time.Millisecond << i, Timeout: time.Second << i,
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
			// As long as it takes to see enough of them die.
			for n := 0; n < each || kills.Load() < least; n++ {
				account, id := rand.N(count), aggregate.CommandID(jetstream.NewCommandID())
				for given := 0; !t.Failed(); given = min(given+1, len(targets)-1) {
					res, err := targets[given].Execute(t.Context(), strconv.Itoa(account), credit{1}, id)
					if errors.Is(err, jetstream.ErrUnknownOutcome) || errors.Is(err, jetstream.ErrUnavailable) ||
						errors.Is(err, aggregate.ErrBusy) || errors.Is(err, aggregate.ErrContended) {
						unknown.Add(1)
						continue
					}
					if err != nil {
						t.Errorf("client %d: %v", i, err)
						return
					}
					if res.Duplicate {
						duplicates.Add(1)
					}
					credits[account].Add(1)
					tell(served, struct{}{})
					break
				}
			}
		})
	}
	wg.Wait()
	close(done)
	<-killer
	t.Logf("%d kills, %d commands found done by an earlier attempt, %d given up and begun again",
		kills.Load(), duplicates.Load(), unknown.Load())
	for i := range count {
		want := credits[i].Load()
		snap, err := repo.Load(t.Context(), strconv.Itoa(i))
		if err != nil || snap.State.Cents != want || snap.Version != uint64(want)+1 {
			t.Errorf("account %d: %+v %v, want %d", i, snap, err, want)
		}
		seen := map[string]bool{}
		for e, err := range repo.History(t.Context(), strconv.Itoa(i)) {
			if err != nil {
				t.Fatal(err)
			}
			if e.Version > 1 && (seen[e.Correlation] || e.Correlation == "") {
				t.Errorf("account %d: %q happened twice", i, e.Correlation)
			}
			seen[e.Correlation] = true
		}
	}
}
