package main_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/examples/sqlview/accounts"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
	"github.com/rossby-go/rossby/projection/sinktest"
)

func TestMain(m *testing.M) {
	if address := os.Getenv("SQLVIEW_TEST_UPDATER"); address != "" {
		if err := updaterProcess(strings.SplitN(address, " ", 3)); err != nil {
			fmt.Fprintln(os.Stderr, "updater:", err)
			os.Exit(1)
		}
		return
	}
	natstest.VerifyTestMain(m)
}

func TestSink(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, db database) {
		sink := connect(t, db)
		if _, err := sink.DB.ExecContext(t.Context(), `CREATE TABLE row (id VARCHAR(200) PRIMARY KEY, v TEXT)`); err != nil {
			t.Fatal(err)
		}
		sinktest.Run(t, sinktest.Backend[*sql.Tx]{
			Open: func(t *testing.T) projection.Sink[*sql.Tx] {
				t.Helper()
				return connect(t, db)
			},
			Put: func(ctx context.Context, tx *sql.Tx, key, value string) error {
				_, err := tx.ExecContext(ctx, `INSERT INTO row (id, v) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET v = $2`, key, value)
				return err
			},
			Get: func(ctx context.Context, key string) (v string, err error) {
				err = sink.DB.QueryRowContext(ctx, `SELECT v FROM row WHERE id = $1`, key).Scan(&v)
				if errors.Is(err, sql.ErrNoRows) {
					err = nil
				}
				return v, err
			},
		})
	})
}

// balance is a row of the table account.
type balance struct {
	Owner         string
	Cents, Events int64
}

// fixture is a store, what its events make, and a database.
type fixture struct {
	t     *testing.T
	url   string
	store *jetstream.Store
	db    database
	last  jetstream.Position
	// rows is the fold of all events that does not go by way of the view, entries the
	// number of entries.
	rows    map[string]balance
	entries int
}

func newFixture(t *testing.T, db database) *fixture {
	t.Helper()
	url := natstest.Run(t).URL()
	store, err := jetstream.Open(t.Context(), natstest.Conn(t, url), jetstream.Config{Name: natstest.Name(t)})
	if err != nil {
		t.Fatal(err)
	}
	return &fixture{t: t, url: url, store: store, db: db, rows: map[string]balance{}}
}

func (f *fixture) append(id string, events ...any) {
	f.t.Helper()
	data := make([]jetstream.EventData, len(events))
	for i, e := range events {
		var err error
		if data[i], err = accounts.Events.Encode(e, f.store.Codec()); err != nil {
			f.t.Fatal(err)
		}
		f.fold(id, e)
	}
	head, err := f.store.Append(f.t.Context(), jetstream.Write{
		Type: "account", ID: id, Expect: jetstream.Any(),
		Decisions: []jetstream.Decision{{Time: time.Now(), Events: data}},
	})
	if err != nil {
		f.t.Fatal(err)
	}
	f.last = f.store.Position(head.Sequence)
}

func (f *fixture) fold(id string, event any) {
	b := f.rows[id]
	b.Events++
	switch e := event.(type) {
	case accounts.Opened:
		b.Owner = e.Owner
	case accounts.Credited:
		b.Cents += e.Cents
		f.entries++
	case accounts.Moved:
		b.Cents -= e.Cents
		f.entries += 2
		to := f.rows[e.To]
		to.Cents, to.Events = to.Cents+e.Cents, to.Events+1
		f.rows[e.To] = to
	case accounts.Closed:
		delete(f.rows, id)
		return
	}
	f.rows[id] = b
}

// feed appends random commits.
func (f *fixture) feed(commits int) {
	f.t.Helper()
	for range commits {
		from := rand.IntN(9)
		id := fmt.Sprint("a", from)
		events := make([]any, 1+rand.IntN(3))
		for i := range events {
			switch rand.IntN(8) {
			case 0:
				events[i] = accounts.Opened{Owner: fmt.Sprint("o", rand.IntN(9))}
			case 1:
				events[i] = accounts.Closed{}
			case 2, 3:
				events[i] = accounts.Moved{To: fmt.Sprint("a", (from+1+rand.IntN(8))%9), Cents: rand.Int64N(50)}
			default:
				events[i] = accounts.Credited{Cents: rand.Int64N(100)}
			}
		}
		f.append(id, events...)
	}
}

// check waits until the view holds every event, and compares it.
func (f *fixture) check() {
	f.t.Helper()
	got, entries := map[string]balance{}, 0
	ctx, cancel := context.WithTimeout(f.t.Context(), natstest.Patience)
	defer cancel()
	err := connect(f.t, f.db).Read(ctx, f.store.Name(), "accounts", f.last, func(tx *sql.Tx) error {
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM entry`).Scan(&entries); err != nil {
			return err
		}
		rows, err := tx.QueryContext(ctx, `SELECT id, owner, cents, events FROM account`)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var id string
			var b balance
			if err := rows.Scan(&id, &b.Owner, &b.Cents, &b.Events); err != nil {
				return err
			}
			got[id] = b
		}
		return rows.Err()
	})
	if err != nil {
		f.t.Fatal(err)
	}
	if !maps.Equal(got, f.rows) || entries != f.entries {
		f.t.Errorf("%d entries, wanted %d\nrows   %v\nwanted %v", entries, f.entries, got, f.rows)
	}
}

func quiet() projection.SinkConfig {
	return projection.SinkConfig{LeaseTTL: time.Second, Logger: slog.New(slog.DiscardHandler)}
}

// run runs an updater until the test ends. What it returns waits for its end.
func run(t *testing.T, up *projection.SinkUpdater) (wait func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		err = up.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return func() error {
		<-done
		return err
	}
}

func (f *fixture) start(def *projection.SinkDefinition[*sql.Tx], cfg projection.SinkConfig) *projection.SinkUpdater {
	f.t.Helper()
	up, err := projection.NewSinkUpdater(f.store, def, connect(f.t, f.db), cfg)
	if err != nil {
		f.t.Fatal(err)
	}
	run(f.t, up)
	return up
}

func (f *fixture) admin() *projection.SinkAdmin {
	f.t.Helper()
	a, err := projection.NewSinkAdmin(f.store, connect(f.t, f.db), "accounts")
	if err != nil {
		f.t.Fatal(err)
	}
	return a
}

// TestReadYourWrites: rows and position are read in one moment, never before the
// caller's own write.
func TestReadYourWrites(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, db database) {
		f := newFixture(t, db)
		f.start(accounts.View, quiet())
		for range 50 {
			f.feed(1)
			f.check()
		}
		head, err := f.store.LastSequence(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		sink := connect(t, db)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		later := f.store.Position(head + 1)
		err = sink.Read(ctx, f.store.Name(), "accounts", later, func(*sql.Tx) error {
			t.Error("it was read before the position was reached")
			return nil
		})
		if !errors.Is(err, projection.ErrStale) {
			t.Errorf("a position that was not reached: %v", err)
		}
	})
}

// updaterProcess is the process that the tests kill and freeze.
func updaterProcess(args []string) error {
	ctx := context.Background()
	nc, err := nats.Connect(args[0], nats.MaxReconnects(-1), nats.ReconnectBufSize(-1), nats.Timeout(natstest.Patience))
	if err != nil {
		return err
	}
	store, err := jetstream.Attach(ctx, nc, args[1])
	if err != nil {
		return err
	}
	sink, err := open(ctx, args[2])
	for began := time.Now(); err != nil && time.Since(began) < natstest.Patience; { // another process may keep it locked
		sink, err = open(ctx, args[2])
	}
	if err != nil {
		return err
	}
	cfg := quiet()
	cfg.PageEvents = 7
	up, err := projection.NewSinkUpdater(store, accounts.View, freezerOf(sink), cfg)
	if err != nil {
		return err
	}
	return up.Run(ctx)
}

// TestKilledProcesses: processes that keep the view get kill -9 while events keep
// coming, two of them at a time; each event counts once.
func TestKilledProcesses(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, db database) {
		f := newFixture(t, db)
		connect(t, db) // Makes the table.
		f.feed(20)
		a := f.admin()
		procs := []*exec.Cmd{f.process(), f.process()}
		epoch := uint64(0)
		for range 6 {
			owner := -1
			natstest.Eventually(t, "a process owns the view", func() error {
				s, err := a.Status(t.Context())
				if err != nil {
					return err
				}
				for i, p := range procs {
					if strings.Contains(s.Owner, fmt.Sprintf("-%d-", p.Process.Pid)) && s.Epoch > epoch {
						owner, epoch = i, s.Epoch
						return nil
					}
				}
				return fmt.Errorf("%+v", s)
			})
			f.feed(1 + rand.IntN(60))
			kill(t, procs[owner])
			procs[owner] = f.process()
		}
		f.check()
		for _, p := range procs {
			kill(t, p)
		}
		f.feed(10)
		f.start(accounts.View, quiet())
		f.check()
	})
}

// TestFrozenProcess: a process that owned the view freezes, loses the view, and
// comes back believing that it owns it: it changes nothing.
func TestFrozenProcess(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, db database) {
		f := newFixture(t, db)
		sink := connect(t, db)
		f.feed(20)
		cmd := f.process()
		f.check()
		for {
			signal(t, cmd, syscall.SIGSTOP)
			stopped(t, cmd)
			if free(t, sink.DB) {
				break
			}
			signal(t, cmd, syscall.SIGCONT) // It stopped within a transaction.
		}
		before, err := f.admin().Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		f.feed(20)
		up := f.start(accounts.View, quiet())
		f.check()
		if s := up.Status(); s.Epoch <= before.Epoch {
			t.Errorf("%+v, before it was %+v", s, before)
		}
		signal(t, cmd, syscall.SIGCONT)
		f.feed(50)
		f.check()
		kill(t, cmd)
		f.feed(10)
		f.check()
	})
}

// free tells whether nobody is in the middle of a transaction of the view.
func free(t *testing.T, db *sql.DB) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err := db.ExecContext(ctx, `UPDATE rossby SET data = data`)
	return err == nil
}

// TestDatabaseAway: the view waits for a database that is away, says so, blames no
// event, and goes on when it is back.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, db database) {
		f := newFixture(t, db)
		cfg := quiet()
		cfg.OnError, cfg.FoldRetries = projection.SkipOnError, -1
		up := f.start(accounts.View, cfg)
		f.feed(20)
		f.check()
		back := db.away(t)
		f.feed(20)
		natstest.Eventually(t, "the status says why", func() error {
			if s := up.Status(); s.Err == nil || s.CaughtUp {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
		back()
		f.check()
		s, err := f.admin().Status(t.Context())
		if err != nil || s.Skipped != 0 {
			t.Errorf("%+v, %v", s, err)
		}
	})
}

// TestEventThatFails: what the database refuses stops the view before it; a person
// has it left out.
func TestEventThatFails(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, db database) {
		f := newFixture(t, db)
		f.feed(20)
		f.append("a1", accounts.Credited{Cents: 1})
		before, good := f.last, f.entries
		f.append("a1", accounts.Credited{Cents: 2_000_000})
		bad := f.rows["a1"]
		f.feed(20)
		f.start(accounts.View, quiet())
		a := f.admin()
		var s projection.ViewStatus
		natstest.Eventually(t, "it stops", func() (err error) {
			if s, err = a.Status(t.Context()); err == nil && s.State != projection.StateStopped {
				err = fmt.Errorf("%+v", s)
			}
			return err
		})
		if s.Position != before || s.Failed == nil || s.Failed.Event != "credited" || s.Failed.ID != "a1" {
			t.Fatalf("%+v", s)
		}
		var entries int
		if err := connect(t, db).DB.QueryRowContext(t.Context(), `SELECT count(*) FROM entry`).Scan(&entries); err != nil || entries != good {
			t.Errorf("%d entries, wanted %d: %v", entries, good, err)
		}
		if err := a.Skip(t.Context(), *s.Failed, "nobody has that much"); err != nil {
			t.Fatal(err)
		}
		f.leaveOut("a1", 2_000_000, bad)
		f.check()
		skips, err := a.Skips(t.Context())
		if err != nil || len(skips) != 1 || skips[0].Reason != "nobody has that much" {
			t.Errorf("%+v, %v", skips, err)
		}
	})
}

// leaveOut takes an event back, if the account was not closed after it.
func (f *fixture) leaveOut(id string, cents int64, then balance) {
	f.entries--
	if b := f.rows[id]; b.Events >= then.Events && b.Cents > cents/2 {
		b.Cents, b.Events = b.Cents-cents, b.Events-1
		f.rows[id] = b
	}
}

// TestNewVersion: a higher version of the view is written anew, each event once.
func TestNewVersion(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, db database) {
		f := newFixture(t, db)
		f.feed(30)
		older := f.start(accounts.View, quiet())
		f.check()
		f.start(accounts.View.Version(2), quiet())
		natstest.Eventually(t, "the older program stands back", func() error {
			if s := older.Status(); s.State != projection.StateSealed {
				return fmt.Errorf("%+v", s)
			}
			return nil
		})
		f.feed(10)
		f.check()
	})
}
