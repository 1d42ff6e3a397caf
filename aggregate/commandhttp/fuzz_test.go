package commandhttp_test

import (
	"log/slog"
	"strings"
	"testing"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/aggregate/commandhttp"
	"github.com/rossby-go/rossby/internal/httpfuzz"
	"github.com/rossby-go/rossby/internal/natstest"
)

// FuzzRequest: every request is answered as HTTP wants it, and what is wrong with
// it is said as the sender's fault. No command gets further than this test's
// connection, which is closed.
func FuzzRequest(f *testing.F) {
	nc := natstest.Conn(f, natstest.Run(f).URL())
	client, err := aggregate.NewClient(nc, "bank", accounts, aggregate.ClientConfig{})
	if err != nil {
		f.Fatal(err)
	}
	nc.Close()
	h, err := commandhttp.New(commandhttp.Config{
		Targets: []aggregate.Target{client}, MaxBody: 1 << 10, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		f.Fatal(err)
	}
	f.Add("POST", "/account/a1/credit", "application/json", `{"cents":5}`, "key", `"7"`, "", "return=minimal, wait=1")
	f.Add("POST", "/account/open", "application/msgpack", "\x80", `"k"`, "*", "*", "wait=99999999999999999999")
	f.Add("GET", "/openapi.json", "", "", "", "", "", "")
	f.Add("PUT", "/account/../x/%2e%2e/credit", "text/html", "<", "\\", `W/"1"`, `"1"`, ";;==,")
	f.Add("POST", "/account/a%2Fb/credit", "application/json; charset=\"", strings.Repeat("[", 900), "", `"`, "", "")
	f.Add("POST", "/account/a1/credit", "application/json", strings.Repeat(" ", 2000), "", "", "", "")
	f.Fuzz(func(t *testing.T, method, path, media, body, key, match, noneMatch, prefer string) {
		httpfuzz.Request(t, h, method, path, body, map[string]string{
			"Content-Type": media, "Idempotency-Key": key, "If-Match": match, "If-None-Match": noneMatch, "Prefer": prefer,
		})
	})
}
