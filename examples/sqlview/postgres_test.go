//go:build postgres

package main_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rossby-go/rossby/examples/sqlview/accounts"
	"github.com/rossby-go/rossby/examples/sqlview/sqlsink"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/projection"
)

// databases are those of a machine where PostgreSQL is installed.
func databases() map[string]func(*testing.T) database {
	return map[string]func(*testing.T) database{"SQLite": newSQLite, "PostgreSQL": newPostgres}
}

// postgres is a server of Debian's package, or any other in the path.
type postgres struct {
	bin, dir string
	// at is the server's own for as long as the tests run, while it is away, too.
	at  string
	cmd *exec.Cmd
}

func newPostgres(t *testing.T) database { return startPostgres(t) } //nolint:ireturn // one of several

func startPostgres(t *testing.T) *postgres {
	t.Helper()
	p := &postgres{bin: binaries(t), at: natstest.Addr(t)}
	dir, err := os.MkdirTemp("", "sqlview-postgres-") //nolint:usetesting // t.TempDir is closed to others
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p.dir = filepath.Join(dir, "data")
	if id := account(t); id != nil {
		if err := errors.Join(os.Chmod(dir, 0o755), os.Chown(dir, int(id.Uid), int(id.Gid))); err != nil {
			t.Fatal(err)
		}
	}
	initdb := p.command(t, "initdb", "-D", p.dir, "-U", "postgres", "-A", "trust", "--no-sync", "-E", "UTF8", "--locale=C")
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	p.start(t)
	t.Cleanup(func() { p.crash(t) })
	return p
}

// binaries is where the server's programs are.
func binaries(t *testing.T) string {
	t.Helper()
	places, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(places) > 0 {
		slices.Sort(places)
		return filepath.Dir(places[len(places)-1])
	}
	place, err := exec.LookPath("postgres")
	if err != nil {
		t.Fatal("PostgreSQL is not installed (Debian: apt install postgresql): leave -tags postgres out")
	}
	return filepath.Dir(place)
}

// account is who runs the server when the tests run as root, who may not.
func account(t *testing.T) *syscall.Credential {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	t.Fatal("neither the user postgres nor nobody is there to run the server")
	return nil
}

func (p *postgres) command(t *testing.T, name string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), filepath.Join(p.bin, name), args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: account(t), Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (p *postgres) start(t *testing.T) {
	t.Helper()
	host, port, err := net.SplitHostPort(p.at)
	if err != nil {
		t.Fatal(err)
	}
	p.cmd = p.command(t, "postgres", "-D", p.dir, "-p", port, "-k", "", "-c", "listen_addresses="+host,
		"-c", "fsync=off", "-c", "shared_buffers=16MB")
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, "PostgreSQL answers", func() error {
		s, err := open(t.Context(), p.address())
		if err != nil {
			return err
		}
		return s.Close()
	})
}

// crash ends all of the server at once, as pg_ctl stop -m immediate does: nothing
// is written, and transactions that were not committed are gone when it comes back.
func (p *postgres) crash(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Error(err)
	}
	_ = p.cmd.Wait()
}

func (p *postgres) address() string {
	return fmt.Sprintf("postgres://postgres@%s/postgres?sslmode=disable&connect_timeout=%.0f", p.at, natstest.Patience.Seconds())
}

// away ends the server.
func (p *postgres) away(t *testing.T) func() {
	t.Helper()
	p.crash(t)
	return func() { p.start(t) }
}

// TestFrozenTransaction: an owner that stops in the middle of a transaction, with
// the record locked, loses the view all the same, and can commit nothing later.
func TestFrozenTransaction(t *testing.T) {
	t.Parallel()
	f := newFixture(t, startPostgres(t))
	f.feed(5)
	sink, err := sqlsink.OpenPostgres(t.Context(), f.db.address(), 500*time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = sink.Close() }()
	within, release := make(chan struct{}), make(chan struct{})
	isWithin := sync.OnceFunc(func() { close(within) }) // it may have to begin once more
	frozen := projection.NewSinkDefinition("accounts", func(context.Context, *sql.Tx) error { return nil },
		projection.OnSink(accounts.Events, func(ctx context.Context, tx *sql.Tx, _ accounts.Opened, _ jetstream.Meta) error {
			_, err := tx.ExecContext(ctx, `UPDATE account SET owner = 'frozen'`)
			isWithin()
			<-release
			return err
		}),
	)
	cfg := quiet()
	cfg.OnStop = projection.ReturnWhenStopped
	// A program of an older version, and so the owner only until the next one comes.
	up, err := projection.NewSinkUpdater(f.store, frozen, sink, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := connect(t, f.db).DB.ExecContext(t.Context(), `CREATE TABLE account (owner TEXT)`); err != nil {
		t.Fatal(err)
	}
	f.append("z", accounts.Opened{Owner: "zoe"})
	done := run(t, up)
	<-within
	next, err := projection.NewSinkUpdater(f.store, accounts.View.Version(2), connect(t, f.db), quiet())
	if err != nil {
		t.Fatal(err)
	}
	run(t, next)
	f.check()
	close(release)
	if err := done(); !errors.Is(err, projection.ErrSuperseded) {
		t.Errorf("the frozen updater: %v", err)
	}
	f.feed(5)
	f.check()
}
