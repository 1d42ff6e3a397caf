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

	"github.com/rossby-go/rossby/aggregate"
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
	natstest.Eventually(b.t, "the books are added up", func() error {
		s, err := b.look()
		switches, holds = s.switches, s.holds
		return errors.Join(err, s.unknown)
	})
	return switches, holds
}

// look is what the console tells: the switches, what they say, and whether the books
// hold, unless that is not known.
type look struct {
	switches, notes map[string]string
	holds           bool
	unknown         error
}

func (b *bank) look() (look, error) {
	b.t.Helper()
	text, err := b.do(http.MethodGet, "/console/api/status", "")
	if err != nil {
		return look{}, err
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
	l := look{switches: map[string]string{}, notes: map[string]string{}, holds: s.Checks[0].Holds}
	for _, w := range s.Switches {
		l.switches[w.Name], l.notes[w.Name] = w.State, w.Note
	}
	if text := s.Checks[0].Error; text != "" {
		l.unknown = errors.New(text)
	}
	return l, nil
}

// seed seeds the bank, again where it is not known whether it is.
func (b *bank) seed() {
	b.t.Helper()
	natstest.Eventually(b.t, "the bank is seeded", func() error { return b.app.Seed(b.t.Context()) })
}

// A key that is written before its view's position is no proof that money was lost.
func TestBooksOfAMoment(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	b.seed()
	type status struct {
		Position  string `json:"position"`
		Invariant struct {
			Holds            bool   `json:"holds"`
			Settled          bool   `json:"settled"`
			Position         string `json:"position"`
			AccountsPosition string `json:"accountsPosition"`
		} `json:"invariant"`
	}
	read := func() (s status, err error) {
		text, err := b.do(http.MethodGet, "/api/status", "")
		if err == nil {
			err = json.Unmarshal(text, &s)
		}
		return s, err
	}
	natstest.Eventually(t, "the books are settled where the store ends", func() error {
		s, err := read()
		if i := s.Invariant; err == nil && (!i.Settled || i.Position != s.Position || i.AccountsPosition != s.Position) {
			err = fmt.Errorf("%+v", s)
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
	var after status
	natstest.Eventually(t, "the status", func() (err error) {
		after, err = read()
		return err
	})
	if !after.Invariant.Holds || after.Invariant.Settled {
		t.Errorf("%+v", after)
	}
}

// Followers that are stopped, and followers that die in the middle, go on where they
// were when they are started again; the books hold all the while.
func TestPartsAreStoppedAndKilled(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	b.seed()
	flip := func(part, option string) {
		t.Helper()
		natstest.Eventually(t, part+" is "+option, func() error {
			_, err := b.do(http.MethodPost, "/console/api/switches/"+part, fmt.Sprintf(`{"option":%q}`, option))
			return err
		})
		if switches, holds := b.status(); switches[part] != option || !holds {
			t.Errorf("%s is %s, not %s; the books hold: %v", part, switches[part], option, holds)
		}
	}
	// create makes a transfer, once, although it may not be told so.
	create := func(id string, cents int64) error {
		_, err := b.app.Transfers.Create(t.Context(), id, commands.CreateTransfer{
			FromAccountID: "ada-giro", ToAccountID: "bela-giro", Cents: cents,
		})
		if errors.Is(err, aggregate.ErrExists) {
			return nil
		}
		return err
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
		natstest.Eventually(t, id+" is made", func() error { return create(id, 100) })
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
		if err := create(id, 1); err != nil {
			return err // and it may be made nevertheless: then it exists the next time
		}
		made = append(made, id)
		l, err := b.look()
		if err != nil {
			return err
		}
		var cuts int
		if _, err = fmt.Sscanf(l.notes["line"], "cut %d times", &cuts); err == nil && cuts < 16 {
			err = fmt.Errorf("%q", l.notes["line"])
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
