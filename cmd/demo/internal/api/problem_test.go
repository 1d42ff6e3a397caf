package api_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/rossby-go/rossby/aggregate"
	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
)

// wantProblem sends a request and checks the problem it leads to.
func (b *bank) wantProblem(status int, code, method, path, body string, headers ...string) reply {
	b.t.Helper()
	r := b.want(status, method, path, body, headers...)
	at, _, _ := strings.Cut(path, "?")
	if r.header.Get("Content-Type") != "application/problem+json" || r.num("status") != int64(status) || r.str("code") != code ||
		r.str("title") != http.StatusText(status) || r.str("type") != "urn:rossby-demo:problem:"+code || r.str("detail") == "" ||
		r.str("instance") != at {
		b.t.Errorf("%s %s: want code %s: %v %s", method, path, code, r.header, r.text)
	}
	return r
}

func TestProblems(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	a := b.open(100)
	head, err := b.store.LastSequence(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	other, err := jetstream.Open(t.Context(), b.store.Conn(), jetstream.Config{Name: "other"})
	if err != nil {
		t.Fatal(err)
	}
	future := url.QueryEscape(b.store.Position(head + 1000).String())
	foreign := url.QueryEscape(other.Position(5).String())
	long := `{"title":"` + strings.Repeat("x", 64<<10) + `"}`
	for i, test := range []struct {
		status             int
		code               string
		method, path, body string
	}{
		{400, "malformed", "POST", "/api/accounts", ``},
		{400, "malformed", "POST", "/api/accounts", `{"title":`},
		{400, "malformed", "POST", "/api/accounts", `{"title":7}`},
		{400, "malformed", "POST", "/api/accounts", `{"title":"x","initialCents":1.5}`},
		{400, "malformed", "POST", "/api/accounts", `{"title":"x","balance":1}`},
		{400, "malformed", "POST", "/api/accounts", `{"title":"x"} {}`},
		{400, "malformed", "POST", "/api/accounts", `{"title":"x"}]`},
		{400, "malformed", "POST", "/api/transfers", `[]`},
		{400, "malformed", "POST", "/api/customers", `"x"`},
		{400, "malformed", "POST", "/api/customers/c/toaccounts", `{"id":1}`},
		{400, "body-too-large", "POST", "/api/accounts", long},
		{400, "body-too-large", "POST", "/api/accounts", `{"title":"x"}` + strings.Repeat(" ", 64<<10)},
		{400, "invalid-id", "POST", "/api/accounts", `{"accountId":"a.b","title":"x"}`},
		{400, "invalid-id", "POST", "/api/accounts", `{"customerId":"a b","title":"x"}`},
		{400, "invalid-id", "POST", "/api/customers", `{"customerId":"*","name":"n","email":"a@b"}`},
		{400, "invalid-id", "POST", "/api/transfers", `{"transferId":">","cents":1}`},
		{400, "invalid-id", "GET", "/api/accounts/a.b", ""},
		{400, "invalid-id", "GET", "/api/accounts/a%20b/history", ""},
		{400, "invalid-id", "GET", "/api/transfers/" + strings.Repeat("x", 200), ""},
		{400, "invalid-id", "GET", "/api/customers/%3E", ""},
		{400, "invalid-id", "DELETE", "/api/accounts/a.b", ""},
		{400, "invalid-id", "DELETE", "/api/customers/c/toaccounts/a.b", ""},
		{400, "invalid-position", "GET", "/api/accounts/" + a + "?after=rubbish!", ""},
		{400, "invalid-position", "GET", "/api/accounts/" + a + "?after=" + foreign, ""},
		{400, "invalid-position", "GET", "/api/accounts?after=1", ""},
		{400, "invalid-wait", "GET", "/api/accounts/" + a + "?wait=long", ""},
		{400, "invalid-wait", "GET", "/api/accounts/" + a + "?wait=2h", ""},
		{400, "invalid-limit", "GET", "/api/transfers?limit=0", ""},
		{400, "invalid-limit", "GET", "/api/accounts?limit=x", ""},
		{404, "not-found", "GET", "/api/accounts/nobody", ""},
		{404, "not-found", "GET", "/api/accounts/nobody/history", ""},
		{404, "not-found", "GET", "/api/transfers/nobody", ""},
		{404, "not-found", "GET", "/api/customers/nobody", ""},
		{404, "not-found", "DELETE", "/api/accounts/nobody", ""},
		{404, "not-found", "POST", "/api/customers/nobody/toaccounts", `{"accountId":"a"}`},
		{404, "not-found", "DELETE", "/api/customers/nobody/toaccounts/a", ""},
		{404, "no-such-route", "GET", "/api", ""},
		{404, "no-such-route", "GET", "/api/banks", ""},
		{404, "no-such-route", "POST", "/api/banks", `{}`},
		{404, "no-such-route", "GET", "/nothing", ""},
		{405, "method-not-allowed", "PUT", "/api/accounts", `{}`},
		{405, "method-not-allowed", "POST", "/api/accounts/" + a, `{}`},
		{405, "method-not-allowed", "DELETE", "/healthz", ""},
		{405, "method-not-allowed", "POST", "/", ""},
		{422, "invalid-amount", "POST", "/api/accounts", `{"title":"x","initialCents":-1}`},
		{422, "unknown-customer", "POST", "/api/accounts", `{"title":"x","customerId":"nobody"}`},
		{422, "invalid-name", "POST", "/api/customers", `{"email":"a@b"}`},
		{422, "invalid-email", "POST", "/api/customers", `{"name":"n"}`},
		{422, "invalid-amount", "POST", "/api/transfers", transferOf(a, "b", 0)},
		{422, "invalid-amount", "POST", "/api/transfers", transferOf(a, "b", -5)},
		{422, "same-account", "POST", "/api/transfers", transferOf(a, a, 5)},
		{422, "invalid-account", "POST", "/api/transfers", transferOf(a, "b c", 5)},
		{504, "stale", "GET", "/api/accounts/" + a + "?wait=200ms&after=" + future, ""},
		{504, "stale", "GET", "/api/accounts?wait=200ms&after=" + future, ""},
	} {
		t.Run(fmt.Sprintf("%02d-%d-%s", i, test.status, test.code), func(t *testing.T) {
			t.Parallel()
			b := b.within(t)
			r := b.wantProblem(test.status, test.code, test.method, test.path, test.body)
			if test.status == 405 && r.header.Get("Allow") == "" {
				t.Error("no Allow")
			}
			if test.status == 504 && r.header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
		})
	}
	b.wantProblem(400, "invalid-key", "POST", "/api/accounts", `{"title":"x"}`, "Idempotency-Key", "")
	b.wantProblem(400, "invalid-key", "POST", "/api/accounts", `{"title":"x"}`, "Idempotency-Key", strings.Repeat("k", 129))
	b.wantProblem(403, "cross-origin", "POST", "/api/accounts", `{"title":"x"}`, "Origin", "https://evil.example", "Sec-Fetch-Site", "cross-site")
}

// failing is a target whose commands fail.
type failing struct {
	aggregate.Target

	err error
}

func (f failing) Create(context.Context, string, any, ...aggregate.CallOption) (aggregate.Result, error) {
	return aggregate.Result{}, f.err
}

func (f failing) Execute(context.Context, string, any, ...aggregate.CallOption) (aggregate.Result, error) {
	return aggregate.Result{}, f.err
}

func TestFaults(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	for _, test := range []struct {
		err    error
		status int
		code   string
		retry  bool
	}{
		{&jetstream.UnknownError{Type: "transfer", ID: "x", Cause: context.DeadlineExceeded}, 504, "unknown-outcome", true},
		{fmt.Errorf("x: %w", jetstream.ErrUnavailable), 503, "unavailable", true},
		{aggregate.ErrBusy, 429, "busy", true},
		{aggregate.ErrContended, 409, "conflict", true},
		{&aggregate.VersionError{Type: "transfer", ID: "x"}, 409, "conflict", false},
		{aggregate.ErrExists, 409, "exists", false},
		{aggregate.ErrOtherPayload, 409, "other-payload", false},
		{aggregate.ErrNotFound, 404, "not-found", false},
		{&jetstream.RefusedError{Type: "transfer", ID: "x", Cause: errors.New("no space")}, 507, "refused", false},
		{&jetstream.InvalidError{Field: "command id", Value: "x", Reason: "is bad"}, 400, "invalid", false},
		{aggregate.Reject("too-late", "closed at five"), 422, "too-late", false},
		{aggregate.ErrInternal, 500, "internal", false},
		{errors.New("a secret"), 500, "internal", false},
	} {
		cfg := b.cfg
		cfg.Transfers = failing{cfg.Transfers, test.err}
		b.stopAPI()
		b.serve(cfg)
		r := b.wantProblem(test.status, test.code, "POST", "/api/transfers", transferOf("a", "b", 1))
		if (r.header.Get("Retry-After") != "") != test.retry || strings.Contains(r.text, "secret") {
			t.Errorf("%v: %v %s", test.err, r.header, r.text)
		}
	}
}

func TestSlowBody(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	b.api.SetBodyTimeout(100 * time.Millisecond)
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", strings.TrimPrefix(b.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	const begun = "POST /api/accounts HTTP/1.1\r\nHost: bank\r\nContent-Length: 100\r\n\r\n{\"title\":"
	if _, err := conn.Write([]byte(begun)); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusRequestTimeout {
		t.Error(resp.Status)
	}
}

func TestWithoutNATS(t *testing.T) {
	t.Parallel()
	b := newBank(t)
	b.open(1)
	if err := b.nats.Stop(); err != nil {
		t.Fatal(err)
	}
	// A command that is sent before the end is noticed may have been executed.
	natstest.Eventually(t, "the connection is gone", func() error {
		if b.store.Conn().IsConnected() {
			return errors.New("it is there")
		}
		return nil
	})
	for _, test := range [][3]string{
		{"POST", "/api/accounts", `{"title":"x"}`},
		{"GET", "/api/accounts/x", ""},
		{"GET", "/api/status", ""},
	} {
		r := b.wantProblem(503, "unavailable", test[0], test[1], test[2])
		if r.header.Get("Retry-After") == "" {
			t.Errorf("%v: %v", test, r.header)
		}
	}
	b.want(200, "GET", "/healthz", "")
	b.want(503, "GET", "/readyz", "")
	b.want(200, "GET", "/", "")
}
