package app_test

import (
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/cmd/demo/internal/app"
	"github.com/rossby-go/rossby/internal/natstest"
)

// A process without the HTTP module tells of itself, too, and of nothing else.
func TestSignalsAlone(t *testing.T) {
	t.Parallel()
	listener := listen(t)
	cfg := app.Config{
		Conn: natstest.Conn(t, natstest.Run(t).URL()), Modules: []app.Module{app.AccountCommands, app.AccountView},
		Signals: listener, Logger: slog.New(slog.DiscardHandler),
	}
	b := running(t, listener, cfg)
	if _, err := b.do(http.MethodGet, "/healthz", ""); err != nil {
		t.Error(err)
	}
	natstest.Eventually(t, "the metrics", func() error {
		text, err := b.do(http.MethodGet, "/metrics", "")
		if err == nil && (!strings.Contains(string(text), "rossby_view_lag") || !strings.Contains(string(text), "rossby_service_taken_total")) {
			err = errors.New(string(text))
		}
		return err
	})
	if _, err := b.do(http.MethodGet, "/console/", ""); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("the console: %v", err)
	}
	cfg.ViewsOnly, cfg.Modules = true, []app.Module{app.Queries}
	if _, err := app.New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "needs the store") {
		t.Errorf("views only: %v", err)
	}
}
