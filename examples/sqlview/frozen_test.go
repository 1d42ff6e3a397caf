package main_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/rossby-go/rossby/examples/sqlview/accounts"
	"github.com/rossby-go/rossby/examples/sqlview/sqlsink"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/projection"
)

// freezing is the variable that lets an updater's process stop itself: before it
// writes a page up to a position of the stream, and in which file it says what came
// of that.
const freezing = "SQLVIEW_TEST_FREEZE"

// goOn ends the name of the file that says that the process may write.
const goOn = ".go"

// freezer is a sink whose process stops, once, with a page in its hands.
type freezer struct {
	projection.Sink[*sql.Tx]

	at   uint64
	file string
	once sync.Once
	// outside keeps the process from stopping within another transaction, such as the
	// one that renews its lease: that would lock SQLite's file for everybody.
	outside sync.Mutex
}

// freezerOf puts a freezer before a sink when the environment says so.
func freezerOf(sink *sqlsink.Sink) projection.Sink[*sql.Tx] {
	at, file, ok := strings.Cut(os.Getenv(freezing), " ")
	if !ok {
		return sink
	}
	sequence, err := strconv.ParseUint(at, 10, 64)
	if err != nil {
		panic(err)
	}
	return &freezer{Sink: sink, at: sequence, file: file}
}

func (f *freezer) Transact(
	ctx context.Context, name string, expected uint64, data []byte, apply func(tx *sql.Tx) error,
) error {
	position, _ := projection.SinkRecord{Revision: 1, Data: data}.Position()
	_, text, _ := strings.Cut(position.String(), "-")
	sequence, _ := strconv.ParseUint(text, 36, 64)
	frozen := false
	if sequence >= f.at {
		f.once.Do(func() { frozen = true })
	}
	f.outside.Lock()
	defer f.outside.Unlock()
	if !frozen {
		return f.Sink.Transact(ctx, name, expected, data, apply)
	}
	if err := syscall.Kill(os.Getpid(), syscall.SIGSTOP); err != nil {
		return err
	}
	// The signal may take a moment to stop all threads: nothing is written before.
	for {
		if _, err := os.Stat(f.file + goOn); err == nil {
			break
		}
		runtime.Gosched()
	}
	// It goes on as if no time had passed.
	err := f.Sink.Transact(context.WithoutCancel(ctx), name, expected, data, apply)
	return errors.Join(err, os.WriteFile(f.file, []byte(fmt.Sprint(err)), 0o600))
}

// TestFrozenBeforeItWrites: a process freezes with a page that it is about to write,
// for longer than its lease, and goes on when another has written that page: its
// transaction is refused, and nothing of it stays.
func TestFrozenBeforeItWrites(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, db database) {
		f := newFixture(t, db)
		connect(t, db) // Makes the table.
		f.append("a1", accounts.Opened{Owner: "ann"})
		head, err := f.store.Sequence(f.last)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "outcome")
		cmd := f.process(fmt.Sprintf("%s=%d %s", freezing, head+1, file))
		f.check()
		// One that is not counted twice by accident: no key of the database keeps it from that.
		f.append("a1", accounts.Opened{Owner: "bob"})
		stopped(t, cmd)
		up := f.start(accounts.View, quiet())
		f.check()
		if s := up.Status(); s.Epoch < 2 {
			t.Errorf("%+v", s)
		}
		if err := os.WriteFile(file+goOn, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		signal(t, cmd, syscall.SIGCONT)
		var outcome []byte
		natstest.Eventually(t, "the process has tried to write", func() (err error) {
			outcome, err = os.ReadFile(file)
			if err == nil && len(outcome) == 0 {
				err = errors.New("it is writing what came of it")
			}
			return err
		})
		if !strings.Contains(string(outcome), projection.ErrSinkConflict.Error()) {
			t.Errorf("its transaction: %s", outcome)
		}
		f.check()
		f.feed(10)
		f.check()
	})
}
