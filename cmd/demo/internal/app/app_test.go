package app_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/cmd/demo/internal/app"
	"github.com/rossby-go/rossby/cmd/demo/internal/commands"
	"github.com/rossby-go/rossby/cmd/demo/internal/notify"
	"github.com/rossby-go/rossby/internal/natstest"
)

func TestMain(m *testing.M) { natstest.VerifyTestMain(m) }

// bank is a bank with everything in one process.
type bank struct {
	t    *testing.T
	url  string
	app  *app.App
	nc   *nats.Conn
	http *http.Client
}

func newBank(t *testing.T) *bank {
	t.Helper()
	listener := listen(t)
	return running(t, listener, app.Config{
		Conn: natstest.Conn(t, natstest.Run(t).URL()), Line: app.NewLine(), Modules: app.Modules(), Listener: listener,
		Logger: slog.New(slog.DiscardHandler), NotifyURL: "http://127.0.0.1:1/", Service: notify.NewService(), TTL: time.Second,
	})
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// running runs a process of the bank, which answers at the listener.
func running(t *testing.T, listener net.Listener, cfg app.Config) *bank {
	t.Helper()
	a, err := app.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ran := make(chan error, 1)
	go func() { ran <- a.Run(ctx) }()
	b := &bank{t: t, url: "http://" + listener.Addr().String(), app: a, nc: cfg.Conn, http: &http.Client{}}
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		b.http.CloseIdleConnections()
	})
	natstest.Eventually(t, "ready", func() error {
		_, err := b.do(http.MethodGet, "/readyz", "")
		return err
	})
	return b
}

func (b *bank) do(method, path, body string) ([]byte, error) {
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.url+path, bytes.NewReader([]byte(body)))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := b.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, text)
	}
	return text, err
}

// status is what the console tells of switches and checks. On a busy machine it may
// have no answer about the books at first, which is no answer that they are wrong.
func (b *bank) status() (switches map[string]string, holds bool) {
	b.t.Helper()
	natstest.Eventually(b.t, "the books are added up", func() (err error) {
		switches, _, holds, err = b.look()
		return err
	})
	return switches, holds
}

// notes are what the switches say.
func (b *bank) notes() map[string]string {
	b.t.Helper()
	_, notes, _, _ := b.look() //nolint:dogsled // what the switches say is all that is wanted
	return notes
}

func (b *bank) look() (switches, notes map[string]string, holds bool, unknown error) {
	b.t.Helper()
	text, err := b.do(http.MethodGet, "/console/api/status", "")
	if err != nil {
		b.t.Fatal(err)
	}
	var s struct {
		Switches []struct {
			Name  string `json:"name"`
			State string `json:"state"`
			Note  string `json:"note"`
		} `json:"switches"`
		Checks []struct {
			Holds bool   `json:"holds"`
			Error string `json:"error"`
		} `json:"checks"`
	}
	if err := json.Unmarshal(text, &s); err != nil || len(s.Checks) != 1 {
		b.t.Fatalf("%v in %s", err, text)
	}
	switches, notes = map[string]string{}, map[string]string{}
	for _, w := range s.Switches {
		switches[w.Name], notes[w.Name] = w.State, w.Note
	}
	if text := s.Checks[0].Error; text != "" {
		unknown = errors.New(text)
	}
	return switches, notes, s.Checks[0].Holds, unknown
}

// A key that is written before its view's position is no proof that money was lost.
func TestBooksOfAMoment(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	if err := b.app.Seed(t.Context()); err != nil {
		t.Fatal(err)
	}
	natstest.Eventually(t, "the books are settled", func() error {
		text, err := b.do(http.MethodGet, "/api/status", "")
		if err == nil && !bytes.Contains(text, []byte(`"settled":true`)) {
			err = errors.New(string(text))
		}
		return err
	})
	// As the updater does on one server, which then writes the position.
	m := nats.NewMsg("$KV.bank_accounts.1.ada-giro")
	m.Header.Set("Rossby-Sequence", "1000")
	m.Data = []byte(`{"accountId":"ada-giro","balanceCents":1}`)
	if _, err := b.nc.RequestMsgWithContext(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	text, err := b.do(http.MethodGet, "/api/status", "")
	if err != nil || !bytes.Contains(text, []byte(`"holds":true`)) || !bytes.Contains(text, []byte(`"settled":false`)) {
		t.Errorf("%v in %s", err, text)
	}
}

// Followers that are stopped, and followers that die in the middle, go on where they
// were when they are started again; the books hold all the while.
func TestPartsAreStoppedAndKilled(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	if err := b.app.Seed(t.Context()); err != nil {
		t.Fatal(err)
	}
	flip := func(part, option string) {
		t.Helper()
		if _, err := b.do(http.MethodPost, "/console/api/switches/"+part, fmt.Sprintf(`{"option":%q}`, option)); err != nil {
			t.Fatal(err)
		}
		if switches, holds := b.status(); switches[part] != option || !holds {
			t.Errorf("%s is %s, not %s; the books hold: %v", part, switches[part], option, holds)
		}
	}
	completed := func(id string) {
		t.Helper()
		natstest.Eventually(t, "the transfer is completed", func() error {
			text, err := b.do(http.MethodGet, "/api/transfers/"+id, "")
			if err == nil && !bytes.Contains(text, []byte("COMPLETED")) {
				err = fmt.Errorf("%s", text)
			}
			return err
		})
	}
	for i, option := range []string{"stopped", "killed"} {
		for _, part := range []string{"transfer-process", "transfer-view"} {
			flip(part, option)
		}
		id := fmt.Sprintf("t%d", i)
		if _, err := b.app.Transfers.Create(t.Context(), id, commands.CreateTransfer{
			FromAccountID: "ada-giro", ToAccountID: "bela-giro", Cents: 100,
		}); err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{"transfer-view", "transfer-process"} {
			flip(part, "runs")
			flip(part, "runs") // which it does already
		}
		completed(id)
	}
	// A line that loses answers leaves nobody knowing what is stored; all of it is found
	// out.
	flip("line", "loses answers")
	var made []string
	natstest.Eventually(t, "the line was cut twice for each module", func() error {
		id := fmt.Sprintf("lost%d", len(made))
		_, err := b.app.Transfers.Create(t.Context(), id, commands.CreateTransfer{
			FromAccountID: "ada-giro", ToAccountID: "bela-giro", Cents: 1,
		})
		if err != nil {
			return err // and it may be made nevertheless: then it exists the next time
		}
		made = append(made, id)
		note := b.notes()["line"]
		var cuts int
		if _, err = fmt.Sscanf(note, "cut %d times", &cuts); err == nil && cuts < 16 {
			err = fmt.Errorf("%q", note)
		}
		return err
	})
	flip("line", "works")
	for _, id := range made {
		completed(id)
	}
	// A commands' service is stopped, not killed: nobody but it knows its connection.
	if _, err := b.do(http.MethodPost, "/console/api/switches/account-commands", `{"option":"killed"}`); err == nil {
		t.Error("account-commands was killed")
	}
	flip("account-commands", "stopped")
	flip("account-commands", "runs")
	for path, want := range map[string]string{"/": "Rossby console", "/bank/": "Skip to the bank"} {
		if text, err := b.do(http.MethodGet, path, ""); err != nil || !bytes.Contains(text, []byte(want)) {
			t.Errorf("%s: %v: %.100s", path, err, text)
		}
	}
}
