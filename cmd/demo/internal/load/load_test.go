package load_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/cmd/demo/internal/app"
	"github.com/rossby-go/rossby/cmd/demo/internal/load"
	"github.com/rossby-go/rossby/cmd/demo/internal/notify"
	"github.com/rossby-go/rossby/internal/natstest"
)

func TestRun(t *testing.T) {
	t.Parallel()
	srv := natstest.Run(t)
	log := slog.New(slog.DiscardHandler)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	notifications := &http.Server{Handler: notify.NewService()}
	other, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- notifications.Serve(other) }()
	bank, err := app.New(t.Context(), app.Config{
		Conn: natstest.Conn(t, srv.URL()), Modules: app.Modules(), Listener: listener, Logger: log,
		NotifyURL: "http://" + other.Addr().String(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- bank.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
		_ = notifications.Close()
		if err := <-served; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	base := "http://" + listener.Addr().String()
	natstest.Eventually(t, "ready", func() error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/readyz", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s", resp.Status)
		}
		return nil
	})
	for name, cfg := range map[string]load.Config{
		"HTTP": {HTTP: base},
		"NATS": {NATS: natstest.Conn(t, srv.URL()), Store: app.StoreName},
	} {
		var out bytes.Buffer
		cfg.Transfers, cfg.Clients, cfg.Accounts, cfg.Out, cfg.Logger = 60, 4, 5, &out, log
		if err := load.Run(t.Context(), cfg); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out.String())
		}
		for _, want := range []string{
			"60 transfers between 5 accounts by 4 clients", "accept     p50", "p90", "p99", "end to end p50", "COMPLETED",
			"own accounts hold 500000 of 500000 cents, 0 accounts are wrong", "they balance",
		} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: %q is missing in\n%s", name, want, out.String())
			}
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for want, cfg := range map[string]load.Config{
		"either HTTP or NATS":    {},
		"no address":             {HTTP: "localhost"},
		"Transfers -1":           {HTTP: "http://x", Transfers: -1},
		"Clients -1":             {HTTP: "http://x", Clients: -1},
		"at least 2 accounts":    {HTTP: "http://x", Accounts: 1},
		"InitialCents -1":        {HTTP: "http://x", InitialCents: -1},
		"Patience -1 is negativ": {HTTP: "http://x", Patience: -1},
	} {
		if err := load.Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}
