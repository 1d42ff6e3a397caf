package jetstream_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	natsjs "github.com/nats-io/nats.go/jetstream"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
)

// restorable is a server whose files a test may touch while it is stopped.
type restorable struct {
	t         *testing.T
	nc        *nats.Conn
	dir, addr string
	srv       *embedded.Server
}

func newRestorable(t *testing.T) *restorable {
	t.Helper()
	r := &restorable{t: t, dir: t.TempDir(), addr: natstest.Addr(t)}
	r.start()
	t.Cleanup(r.stop)
	r.nc = natstest.Conn(t, "nats://"+r.addr)
	return r
}

func (r *restorable) start() {
	r.t.Helper()
	var err error
	r.srv, err = embedded.Start(embedded.Config{
		Listen: r.addr, StoreDir: r.dir, LazySync: true, ReadyTimeout: natstest.Patience,
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

func (r *restorable) stop() {
	r.t.Helper()
	if r.srv == nil {
		return
	}
	if err := r.srv.Stop(); err != nil {
		r.t.Error(err)
	}
	r.srv = nil
}

// offline does something to the files.
func (r *restorable) offline(f func()) {
	r.t.Helper()
	r.stop()
	f()
	r.start()
	natstest.Eventually(r.t, "the connection is back", func() error {
		_, err := r.nc.RTT()
		return err
	})
}

// backup copies the files; the result puts them back.
func (r *restorable) backup() (restore func()) {
	r.t.Helper()
	copyTo := r.t.TempDir()
	r.offline(func() {
		if err := os.CopyFS(copyTo, os.DirFS(r.dir)); err != nil {
			r.t.Fatal(err)
		}
	})
	return func() {
		r.t.Helper()
		r.offline(func() {
			if err := os.RemoveAll(r.dir); err != nil {
				r.t.Fatal(err)
			}
			if err := os.CopyFS(r.dir, os.DirFS(copyTo)); err != nil {
				r.t.Fatal(err)
			}
		})
	}
}

// blocks are the files that hold a stream's messages, in order.
func (r *restorable) blocks(stream string) []string {
	r.t.Helper()
	var out []string
	err := filepath.WalkDir(r.dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.Contains(path, "/"+stream+"/msgs/") && strings.HasSuffix(path, ".blk") {
			out = append(out, path)
		}
		return err
	})
	if err != nil {
		r.t.Fatal(err)
	}
	slices.SortFunc(out, func(a, b string) int { // by number
		if len(a) != len(b) {
			return len(a) - len(b)
		}
		return strings.Compare(a, b)
	})
	return out
}

// TestARestoredStoreIsNoticed: by appends, positions, reads and heads of the program
// that knew it before; nothing but opening it anew lets it write.
func TestARestoredStoreIsNoticed(t *testing.T) {
	t.Parallel()
	r := newRestorable(t)
	cfg := jetstream.Config{Name: natstest.Name(t), AttemptTimeout: longAttempt}
	s := open(t, r.nc, cfg)
	old := appendN(t, s, "a1", 3)
	restore := r.backup()
	last, err := s.Append(t.Context(), write("a1", "", old[2]))
	if err != nil {
		t.Fatal(err)
	}
	others := appendN(t, s, "b", 3)
	position := s.Position(others[2].Sequence)
	if err := s.CheckPosition(t.Context(), position); err != nil {
		t.Error(err)
	}
	restore()

	again := open(t, r.nc, cfg) // knows nothing of it
	var wg sync.WaitGroup
	for what, f := range map[string]func() error{
		"an append after a lost commit": func() error {
			return told(t, func(ctx context.Context) error { return second(s.Append(ctx, write("a1", "", last))) })
		},
		"the head":                 func() error { return second(s.LastSequence(t.Context())) },
		"a position":               func() error { return s.CheckPosition(t.Context(), position) },
		"a position that was kept": func() error { return again.CheckPosition(t.Context(), position) },
		"scan": func() error {
			return second(collect(again.Scan(t.Context(), "", jetstream.Range{After: others[2].Sequence})))
		},
		"history": func() error {
			return second(history(t.Context(), again, "a1", jetstream.Range{After: others[2].Sequence}))
		},
	} {
		wg.Go(func() {
			if err := f(); !errors.Is(err, jetstream.ErrStoreWentBack) {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
	wg.Wait()
	if err := again.CheckPosition(t.Context(), again.Position(old[2].Sequence)); err != nil {
		t.Errorf("a position that is still there: %v", err)
	}
	// The program that knew more finds out what is lost, the other has nothing to say.
	wantFound(t, s, jetstream.Verification{}, "missing 5-8")
	wantFound(t, again, jetstream.Verification{}, "")

	// The aggregate b is gone: who expects none gets a sequence that was given out
	// before. That commit is stored; it is the last one.
	if _, err := s.Append(t.Context(), write("c", "", jetstream.Head{})); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), write("d", "", jetstream.Head{})); !errors.Is(err, jetstream.ErrStoreWentBack) {
		t.Errorf("an append after a sequence that came twice: %v", err)
	}
	if commits, err := history(t.Context(), again, "d", jetstream.Range{}); len(commits) > 0 || err != nil {
		t.Errorf("%d commits were stored, %v", len(commits), err)
	}
	if _, err := again.Append(t.Context(), write("d", "", jetstream.Head{})); err != nil {
		t.Errorf("opened anew: %v", err)
	}
}

// TestARestoredStoreIsNoticedWithoutAnAcknowledgement: the sequence that comes a second
// time is that of a commit whose acknowledgement was lost.
func TestARestoredStoreIsNoticedWithoutAnAcknowledgement(t *testing.T) {
	t.Parallel()
	r := newRestorable(t)
	p := newProxy(t, "nats://"+r.addr)
	s := open(t, natstest.Conn(t, p.url(), nats.IgnoreDiscoveredServers()),
		jetstream.Config{Name: natstest.Name(t), AttemptTimeout: 500 * time.Millisecond})
	restore := r.backup()
	natstest.Eventually(t, "the connection is back", func() error { return second(s.Conn().RTT()) })
	appendN(t, s, "a", 3)
	restore()
	natstest.Eventually(t, "the connection is back", func() error { return second(s.Conn().RTT()) })
	var appends atomic.Int64
	mute := func() fate { return fate{mute: appends.Add(1) == 1} }
	p.fate.Store(&mute)
	if _, err := s.Append(t.Context(), write("b", "", jetstream.Head{})); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Append(t.Context(), write("c", "", jetstream.Head{})); !errors.Is(err, jetstream.ErrStoreWentBack) {
		t.Errorf("after %d attempts: %v", appends.Load(), err)
	}
}

func second[T any](_ T, err error) error { return err }

// TestALostTailWrittenOver: a writer decided on a commit that was lost, and another
// one's commit got its sequence. The server takes the append, as the sequence is
// right; the chain of ids shows it, on replay and to Verify.
func TestALostTailWrittenOver(t *testing.T) {
	t.Parallel()
	r := newRestorable(t)
	name := natstest.Name(t)
	writer := open(t, r.nc, jetstream.Config{Name: name})
	old := appendN(t, writer, "a1", 3)
	restore := r.backup()
	lost, err := writer.Append(t.Context(), write("a1", "lost", old[2]))
	if err != nil {
		t.Fatal(err)
	}
	restore()
	other := open(t, r.nc, jetstream.Config{Name: name})
	over, err := other.Append(t.Context(), write("a1", "over", old[2]))
	if err != nil || over.Sequence != lost.Sequence {
		t.Fatalf("%+v, %v", over, err)
	}
	// A program that has not heard of anything newer cannot tell.
	fork, err := other.Append(t.Context(), write("a1", "", lost))
	if err != nil {
		t.Fatal(err)
	}
	commits, err := history(t.Context(), other, "a1", jetstream.Range{})
	var damage *jetstream.DamageError
	if !errors.As(err, &damage) || damage.Kind != jetstream.DamageChain || damage.Sequence != fork.Sequence || len(commits) != 4 {
		t.Errorf("%d commits, %v", len(commits), err)
	}
	wantFound(t, other, jetstream.Verification{}, "chain 6 a1")
	wantFound(t, other, jetstream.Verification{Type: "account", ID: "a1"}, "chain 6 a1")
	wantFound(t, other, jetstream.Verification{Sample: 3}, "chain 6 a1")
}

// TestDamagedFiles: what a server makes of files that lost something, and what
// Rossby says to it.
func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 200<<10)
	flip := func(t *testing.T, blocks []string) {
		t.Helper()
		data, err := os.ReadFile(blocks[0])
		if err != nil {
			t.Fatal(err)
		}
		data[len(data)/2] ^= 0x20
		if err := os.WriteFile(blocks[0], data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// A hole, and each aggregate that goes on after it.
	hole := func(t *testing.T, _ *jetstream.Store, _ uint64, all []*jetstream.DamageError) {
		t.Helper()
		kinds := map[jetstream.DamageKind]int{}
		for _, d := range all {
			kinds[d.Kind]++
		}
		if kinds[jetstream.DamageMissing] != 1 || kinds[jetstream.DamageChain] != 2 || len(all) != 3 {
			t.Errorf("found %v", all)
		}
	}
	for name, c := range map[string]struct {
		compressed bool
		damage     func(t *testing.T, blocks []string)
		// check is given what was found.
		check func(t *testing.T, s *jetstream.Store, head uint64, all []*jetstream.DamageError)
	}{
		"the last block removed": {
			damage: func(t *testing.T, blocks []string) {
				t.Helper()
				if err := os.Remove(blocks[len(blocks)-1]); err != nil {
					t.Fatal(err)
				}
			},
			check: func(t *testing.T, s *jetstream.Store, head uint64, all []*jetstream.DamageError) {
				t.Helper()
				if err := s.CheckPosition(t.Context(), s.Position(head)); !errors.Is(err, jetstream.ErrStoreWentBack) {
					t.Error(err)
				}
				if len(all) != 1 || all[0].Kind != jetstream.DamageMissing || all[0].Through != head {
					t.Errorf("found %v", all)
				}
			},
		},
		"a block in the middle removed": {
			damage: func(t *testing.T, blocks []string) {
				t.Helper()
				if err := os.Remove(blocks[1]); err != nil {
					t.Fatal(err)
				}
			},
			check: hole,
		},
		// The server leaves out the rest of its block, too.
		"a byte of a commit changed": {damage: flip, check: hole},
		"a byte of a compressed block changed": {
			compressed: true, damage: flip,
			// A server of 2.15 that cannot decompress a block does not know the stream.
			check: nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRestorable(t)
			s := open(t, r.nc, jetstream.Config{Name: natstest.Name(t)})
			if c.compressed {
				edit(t, r.nc, s.Name(), func(c *natsjs.StreamConfig) { c.Compression = natsjs.S2Compression })
				r.offline(func() {}) // it counts from the next start on
			}
			var heads [2]jetstream.Head
			for i := range 120 { // 24 MB in three blocks
				w := write([]string{"a", "b"}[i%2], "", heads[i%2])
				w.Decisions[0].Events[0].Data = append([]byte("\xc6\x00\x03\x20\x00"), big...)
				var err error
				if heads[i%2], err = s.Append(t.Context(), w); err != nil {
					t.Fatal(err)
				}
			}
			r.offline(func() {
				blocks := r.blocks(s.Name())
				if len(blocks) < 3 {
					t.Fatalf("%d blocks", len(blocks))
				}
				c.damage(t, blocks)
				// The index is a cache that a server with lost files has lost, too.
				_ = os.Remove(filepath.Join(filepath.Dir(blocks[0]), "index.db"))
			})
			if c.check == nil {
				for d, err := range s.Verify(t.Context(), jetstream.Verification{}) {
					if !errors.Is(err, jetstream.ErrStoreNotFound) {
						t.Error(d, err)
					}
				}
				if _, err := jetstream.Attach(t.Context(), r.nc, s.Name()); !errors.Is(err, jetstream.ErrStoreNotFound) {
					t.Error(err)
				}
				// As long as anything else of it is there, nobody makes it anew over its files.
				left := "KV_" + s.Name() + "__followers"
				put(t, r.nc, s.Name()+"__followers", "mailer")
				_, err := jetstream.Open(t.Context(), r.nc, jetstream.Config{Name: s.Name()})
				if lost, ok := errors.AsType[*jetstream.StoreLostError](err); !ok || !slices.Equal(lost.Left, []string{left}) {
					t.Error(err)
				}
				js := natstest.JetStream(t, r.nc)
				if err := js.DeleteStream(t.Context(), left); err != nil {
					t.Fatal(err)
				}
				// Made anew it is another store, and what was kept of this one is refused.
				anew, err := jetstream.Open(t.Context(), r.nc, jetstream.Config{Name: s.Name()})
				if err != nil {
					t.Log(err)
					return
				}
				if _, err := anew.Sequence(s.Position(5)); anew.ID() == s.ID() || !is[*jetstream.ForeignPositionError](err) {
					t.Error(anew.ID(), err)
				}
				return
			}
			all := verified(t, s, jetstream.Verification{})
			for _, d := range all {
				t.Log(d)
			}
			c.check(t, s, heads[1].Sequence, all)
		})
	}
}
