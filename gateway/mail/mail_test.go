package mail_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/mail"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"

	"github.com/rossby-go/rossby/gateway"
	rossbymail "github.com/rossby-go/rossby/gateway/mail"
	"github.com/rossby-go/rossby/jetstream"
)

const password = "opensesame"

type joined struct{ Name, Email string }

// server is an SMTP server that keeps what it takes.
type server struct {
	addr   *net.TCPAddr
	tls    *tls.Config // what clients trust
	mu     sync.Mutex
	mails  []received
	refuse func(stage string) error
}

type received struct {
	from, user string
	to         []string
	data       string
}

type session struct {
	s *server
	m received
}

func (x *session) Reset()        { x.m = received{user: x.m.user} }
func (x *session) Logout() error { return nil }
func (x *session) said(stage string) error {
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	if x.s.refuse == nil {
		return nil
	}
	return x.s.refuse(stage)
}

func (x *session) Mail(from string, _ *smtp.MailOptions) error {
	x.m.from = from
	return x.said("mail")
}

func (x *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	x.m.to = append(x.m.to, to)
	return x.said("rcpt")
}

func (x *session) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if err := x.said("data"); err != nil {
		return err
	}
	x.m.data = string(data)
	x.s.mu.Lock()
	defer x.s.mu.Unlock()
	x.s.mails = append(x.s.mails, x.m)
	return nil
}

func (x *session) AuthMechanisms() []string { return []string{sasl.Plain} }

func (x *session) Auth(string) (sasl.Server, error) { //nolint:ireturn // the library asks for it
	return sasl.NewPlainServer(func(_, user, pass string) error {
		if pass != password {
			return smtp.ErrAuthFailed
		}
		x.m.user = user
		return nil
	}), nil
}

func (s *server) got() []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]received(nil), s.mails...)
}

func (s *server) refuses(f func(stage string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuse = f
}

// newServer listens with a certificate of a test server.
func newServer(t *testing.T, implicit bool) *server {
	t.Helper()
	web := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(web.Close)
	s := &server{tls: web.Client().Transport.(*http.Transport).TLSClientConfig.Clone()} //nolint:forcetypeassert // a test client's
	s.tls.ServerName = "example.com"
	srv := smtp.NewServer(smtp.BackendFunc(func(*smtp.Conn) (smtp.Session, error) { return &session{s: s}, nil }))
	srv.Domain, srv.AllowInsecureAuth = "localhost", true
	srv.TLSConfig = &tls.Config{Certificates: web.TLS.Certificates, MinVersion: tls.VersionTLS12}
	srv.ErrorLog = quiet{}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = l.Addr().(*net.TCPAddr) //nolint:forcetypeassert // it listens on TCP
	if implicit {
		l = tls.NewListener(l, srv.TLSConfig)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() {
		_ = srv.Close()
		_ = l.Close() // Serve may not have known it yet
		<-done
	})
	return s
}

type quiet struct{}

func (quiet) Printf(string, ...any) {}
func (quiet) Println(...any)        {}

func (s *server) config() rossbymail.Config {
	return rossbymail.Config{
		Host: "127.0.0.1", Port: s.addr.Port, From: "The Club <club@example.com>", TLS: s.tls,
		Username: "club", Password: password,
	}
}

func delivery() gateway.Delivery {
	return gateway.Delivery{
		Meta: jetstream.Meta{
			Type: "member", ID: "m1", EventID: "abc.0", Name: "joined",
			Time: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC),
		},
		IdempotencyKey: "letters-abc.0",
	}
}

func letter(e joined, _ gateway.Delivery) (*rossbymail.Message, error) {
	return &rossbymail.Message{
		To: []string{e.Email}, Bcc: []string{"archive@example.com"}, ReplyTo: "desk@example.com",
		Subject: "Wëlcome,\r\nBcc: victim@example.com", Text: "Hello " + e.Name, HTML: "<p>Hello " + e.Name,
	}, nil
}

func send(t *testing.T, cfg rossbymail.Config, compose func(joined, gateway.Delivery) (*rossbymail.Message, error)) error {
	t.Helper()
	m, err := rossbymail.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	return rossbymail.Send(m, compose)(ctx, joined{"Ada", "ada@example.org"}, delivery())
}

func TestSend(t *testing.T) {
	t.Parallel()
	for name, security := range map[string]rossbymail.Security{
		"starttls": rossbymail.StartTLS, "implicit": rossbymail.ImplicitTLS, "plain": rossbymail.NoTLS,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, security == rossbymail.ImplicitTLS)
			cfg := s.config()
			cfg.Security = security
			for range 2 { // as after an acceptance that got lost
				if err := send(t, cfg, letter); err != nil {
					t.Fatal(err)
				}
			}
			got := s.got()
			if len(got) != 2 {
				t.Fatalf("%d mails", len(got))
			}
			if got[0].from != "club@example.com" || got[0].user != "club" ||
				strings.Join(got[0].to, " ") != "ada@example.org archive@example.com" {
				t.Errorf("%+v", got[0])
			}
			ids := map[string]bool{}
			for _, g := range got {
				m, err := mail.ReadMessage(strings.NewReader(g.data))
				if err != nil {
					t.Fatal(err)
				}
				ids[m.Header.Get("Message-ID")] = true
				if m.Header.Get("Bcc") != "" || m.Header.Get("Reply-To") != "<desk@example.com>" ||
					m.Header.Get("Auto-Submitted") != "auto-generated" || !strings.Contains(m.Header.Get("Date"), "25 Nov 2026 12:00:00") {
					t.Errorf("headers %v", m.Header)
				}
				if !strings.Contains(g.data, "Hello Ada") || !strings.Contains(g.data, "<p>Hello Ada") {
					t.Errorf("body %q", g.data)
				}
			}
			if !ids["<letters-abc.0@example.com>"] || len(ids) != 1 {
				t.Errorf("ids %v", ids)
			}
		})
	}
}

// What the server says about the mail is for ever with 5xx and for now with 4xx;
// what it says about us is for now.
func TestRefusals(t *testing.T) {
	t.Parallel()
	s := newServer(t, false)
	answer := func(stage string, code int) {
		s.refuses(func(at string) error {
			if at == stage {
				return &smtp.SMTPError{Code: code, Message: "no"}
			}
			return nil
		})
	}
	for _, c := range []struct {
		stage     string
		code      int
		permanent bool
	}{
		{"mail", 550, true}, {"rcpt", 550, true}, {"rcpt", 553, true}, {"data", 554, true},
		{"mail", 451, false}, {"rcpt", 450, false}, {"data", 452, false}, {"mail", 530, false},
	} {
		answer(c.stage, c.code)
		err := send(t, s.config(), letter)
		if err == nil || errors.Is(err, gateway.ErrPermanent) != c.permanent {
			t.Errorf("%d to %s: %v, permanent is %v", c.code, c.stage, err, c.permanent)
		}
	}
	s.refuses(nil)
	if n := len(s.got()); n != 0 {
		t.Errorf("%d mails were taken", n)
	}
	wrong := s.config()
	wrong.Password = "wrong"
	if err := send(t, wrong, letter); err == nil || errors.Is(err, gateway.ErrPermanent) || strings.Contains(err.Error(), password) {
		t.Errorf("a wrong password: %v", err)
	}
	away := s.config()
	away.Port = 1
	if err := send(t, away, letter); err == nil || errors.Is(err, gateway.ErrPermanent) {
		t.Errorf("a server that is away: %v", err)
	}
	distrust := s.config()
	distrust.TLS = nil
	if err := send(t, distrust, letter); err == nil || errors.Is(err, gateway.ErrPermanent) {
		t.Errorf("a certificate that nobody trusts: %v", err)
	}
	if n := len(s.got()); n != 0 {
		t.Errorf("%d mails were taken", n)
	}
}

func TestCompose(t *testing.T) {
	t.Parallel()
	s := newServer(t, false)
	if err := send(t, s.config(), func(joined, gateway.Delivery) (*rossbymail.Message, error) {
		return nil, nil //nolint:nilnil // no mail is an answer
	}); err != nil {
		t.Errorf("no mail: %v", err)
	}
	for name, m := range map[string]*rossbymail.Message{
		"nobody":      {Subject: "x", Text: "x"},
		"nothing":     {To: []string{"a@example.org"}},
		"no address":  {To: []string{"nowhere"}, Text: "x"},
		"injected":    {To: []string{"a@example.org\r\nBcc: b@example.org"}, Text: "x"},
		"no reply-to": {To: []string{"a@example.org"}, ReplyTo: "x", Text: "x"},
	} {
		err := send(t, s.config(), func(joined, gateway.Delivery) (*rossbymail.Message, error) { return m, nil })
		if !errors.Is(err, gateway.ErrPermanent) {
			t.Errorf("%s: %v", name, err)
		}
	}
	err := send(t, s.config(), func(joined, gateway.Delivery) (*rossbymail.Message, error) { return nil, errors.New("no words") })
	if !errors.Is(err, gateway.ErrPermanent) || !strings.Contains(err.Error(), "no words") {
		t.Errorf("compose fails: %v", err)
	}
	if n := len(s.got()); n != 0 {
		t.Errorf("%d mails were taken", n)
	}
}

func TestConfigIsValidated(t *testing.T) {
	t.Parallel()
	_, err := rossbymail.New(rossbymail.Config{Host: "a b", Port: -1, From: "nobody", Security: 9, Timeout: -1, Username: "u"})
	for _, want := range []string{"Host", "Port", "From", "Security", "Timeout", "Username"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is missing in: %v", want, err)
		}
	}
}
