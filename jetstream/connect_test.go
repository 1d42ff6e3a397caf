package jetstream_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/rossby-go/rossby/internal/natstest"
	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/embedded"
)

func TestConnectOverTCP(t *testing.T) {
	t.Parallel()
	srv := natstest.Run(t)
	nc := connectTo(t, jetstream.ConnectConfig{URL: srv.URL(), Name: "me", InboxPrefix: "_INBOX_me"})
	if !nc.IsConnected() {
		t.Errorf("status %v", nc.Status())
	}
	if nc.Opts.Name != "me" {
		t.Errorf("name %q", nc.Opts.Name)
	}
	if inbox := nc.NewInbox(); !strings.HasPrefix(inbox, "_INBOX_me.") {
		t.Errorf("inbox %q", inbox)
	}
	if nc.Opts.MaxReconnect != -1 || nc.Opts.ReconnectBufSize != -1 || !nc.Opts.IgnoreAuthErrorAbort {
		t.Errorf("reconnects %d, buffer %d, ignores auth errors %v",
			nc.Opts.MaxReconnect, nc.Opts.ReconnectBufSize, nc.Opts.IgnoreAuthErrorAbort)
	}
}

func TestConnectNameDefaultsToTheProgram(t *testing.T) {
	t.Parallel()
	nc := connectTo(t, jetstream.ConnectConfig{URL: natstest.Run(t).URL()})
	if want := filepath.Base(os.Args[0]); nc.Opts.Name != want {
		t.Errorf("name %q, want %q", nc.Opts.Name, want)
	}
}

func TestConnectInProcess(t *testing.T) {
	t.Parallel()
	srv, err := embedded.Start(embedded.Config{LazySync: true, ReadyTimeout: natstest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Stop() })
	nc := connectTo(t, jetstream.ConnectConfig{Options: []nats.Option{srv.Option()}})
	if err := nc.FlushTimeout(natstest.Patience); err != nil {
		t.Error(err)
	}
}

func TestConnectSkipsAServerThatIsDown(t *testing.T) {
	t.Parallel()
	nc := connectTo(t, jetstream.ConnectConfig{
		URL: "nats://" + natstest.Addr(t) + ", " + natstest.Run(t).URL(),
	})
	if !nc.IsConnected() {
		t.Errorf("status %v", nc.Status())
	}
}

func TestConnectWaitsForAServerThatStartsLater(t *testing.T) {
	t.Parallel()
	addr, dir, log := natstest.Addr(t), t.TempDir(), new(connectLog)
	type result struct {
		nc  *nats.Conn
		err error
	}
	done := make(chan result, 1)
	tried := make(chan struct{})
	go func() {
		nc, err := jetstream.Connect(t.Context(), jetstream.ConnectConfig{
			URL: "nats://" + addr, Wait: natstest.Patience, Logger: log.logger(),
			Options: []nats.Option{nats.SetCustomDialer(&connectDialer{first: tried})},
		})
		done <- result{nc, err}
	}()
	<-tried
	srv, err := embedded.Start(embedded.Config{Listen: addr, StoreDir: dir, LazySync: true, ReadyTimeout: natstest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Stop() })
	r := <-done
	if r.err != nil {
		t.Fatal(r.err)
	}
	r.nc.Close()
}

func TestConnectGivesUpOnAServerThatIsNotThere(t *testing.T) {
	t.Parallel()
	addr, wait := natstest.Addr(t), 300*time.Millisecond
	var err error
	// When nothing could be tried meanwhile, there is nothing to tell but that.
	natstest.Eventually(t, "the reason", func() error {
		start := time.Now()
		var nc *nats.Conn
		nc, err = jetstream.Connect(t.Context(), jetstream.ConnectConfig{URL: "nats://alice:hush@" + addr, Wait: wait})
		if nc != nil {
			nc.Close()
			t.Fatal("connected")
		}
		if took := time.Since(start); took < wait {
			t.Errorf("gave up after %v", took)
		}
		wait *= 2
		if !errors.Is(err, nats.ErrNoServers) {
			return err
		}
		return nil
	})
	e, ok := errors.AsType[*jetstream.ConnectError](err)
	if !ok {
		t.Fatalf("%T: %v", err, err)
	}
	if !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, nats.ErrNoServers) {
		t.Errorf("does not say why: %v", err)
	}
	for _, want := range []string{addr, "connection refused"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not name %q", err, want)
		}
	}
	if strings.Contains(err.Error(), "hush") || !strings.Contains(e.Address, "alice") {
		t.Errorf("address shown as %q", e.Address)
	}
}

func TestConnectHonoursItsContext(t *testing.T) {
	t.Parallel()
	// A listener that accepts and says nothing.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	ctx, cancel := context.WithCancel(t.Context())
	tried := make(chan struct{})
	go func() {
		<-tried
		cancel()
	}()
	_, err = jetstream.Connect(ctx, jetstream.ConnectConfig{
		URL: "nats://" + l.Addr().String(), Wait: time.Hour,
		Options: []nats.Option{nats.SetCustomDialer(&connectDialer{first: tried})},
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := jetstream.Connect(ctx, jetstream.ConnectConfig{}); !errors.Is(err, context.Canceled) {
		t.Errorf("ended before it began: %v", err)
	}
}

func TestConnectCredentials(t *testing.T) {
	t.Parallel()
	key, err := nkeys.CreateUser()
	if err != nil {
		t.Fatal(err)
	}
	public, err := key.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	seed, err := key.Seed()
	if err != nil {
		t.Fatal(err)
	}
	seedFile := connectFile(t, "user.nk", seed)
	url := connectServer(t, &server.Options{
		Users: []*server.User{{Username: "alice", Password: "hush"}},
		Nkeys: []*server.NkeyUser{{Nkey: public}},
	}).ClientURL()

	for name, cfg := range map[string]jetstream.ConnectConfig{
		"User":           {URL: url, User: "alice", Password: "hush"},
		"UserInURL":      {URL: strings.Replace(url, "://", "://alice:hush@", 1)},
		"NKeySeedFile":   {URL: url, NKeySeedFile: seedFile},
		"OptionsGoAhead": {URL: url, User: "bob", Options: []nats.Option{nats.UserInfo("alice", "hush")}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			connectTo(t, cfg)
		})
	}
	for name, cfg := range map[string]jetstream.ConnectConfig{
		"None":          {URL: url},
		"WrongPassword": {URL: url, User: "alice", Password: "louder"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg.Wait = time.Hour // Refused credentials end the wait at once.
			_, err := jetstream.Connect(t.Context(), cfg)
			if !errors.Is(err, nats.ErrAuthorization) {
				t.Errorf("got %v", err)
			}
		})
	}
	t.Run("NoSeedInTheFile", func(t *testing.T) {
		t.Parallel()
		_, err := jetstream.Connect(t.Context(), jetstream.ConnectConfig{
			URL: url, NKeySeedFile: connectFile(t, "empty.nk", nil),
		})
		if _, ok := errors.AsType[*jetstream.ConnectError](err); !ok || !strings.Contains(err.Error(), "empty.nk") {
			t.Errorf("got %v", err)
		}
	})
}

func TestConnectToken(t *testing.T) {
	t.Parallel()
	url := connectServer(t, &server.Options{Authorization: "s3cret"}).ClientURL()
	connectTo(t, jetstream.ConnectConfig{URL: url, Token: "s3cret"})
	// The URL of a token holds it where a user would stand.
	_, err := jetstream.Connect(t.Context(), jetstream.ConnectConfig{
		URL: strings.Replace(url, "://", "://wr0ng@", 1), Wait: time.Hour,
	})
	if !errors.Is(err, nats.ErrAuthorization) || strings.Contains(err.Error(), "wr0ng") {
		t.Errorf("got %v", err)
	}
}

func TestConnectPermissionErrorsOnSubscribe(t *testing.T) {
	t.Parallel()
	log := new(connectLog)
	url := connectServer(t, &server.Options{Users: []*server.User{{
		Username: "alice", Password: "hush",
		Permissions: &server.Permissions{Subscribe: &server.SubjectPermission{Allow: []string{"open.>"}}},
	}}}).ClientURL()
	nc := connectTo(t, jetstream.ConnectConfig{URL: url, User: "alice", Password: "hush", Logger: log.logger()})
	sub, err := nc.SubscribeSync("closed.a")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sub.NextMsg(natstest.Patience); !errors.Is(err, nats.ErrPermissionViolation) {
		t.Errorf("got %v", err)
	}
	natstest.Eventually(t, "the error in the log", func() error {
		if s := log.String(); !strings.Contains(s, "closed.a") {
			return errors.New(s)
		}
		return nil
	})
}

func TestConnectPublishesFailAtOnceWhileDisconnected(t *testing.T) {
	t.Parallel()
	cfg := embedded.Config{
		Listen: natstest.Addr(t), StoreDir: t.TempDir(), LazySync: true, ReadyTimeout: natstest.Patience,
	}
	srv, err := embedded.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	log := new(connectLog)
	nc := connectTo(t, jetstream.ConnectConfig{
		URL: srv.URL(), Logger: log.logger(),
		Options: []nats.Option{nats.ReconnectWait(10 * time.Millisecond)},
	})
	disconnected, reconnected := nc.StatusChanged(nats.RECONNECTING), nc.StatusChanged(nats.CONNECTED)
	if err := srv.Stop(); err != nil {
		t.Fatal(err)
	}
	<-disconnected
	if err := nc.Publish("a", nil); !errors.Is(err, nats.ErrReconnectBufExceeded) {
		t.Errorf("publish while disconnected: %v", err)
	}
	if srv, err = embedded.Start(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = srv.Stop() })
	<-reconnected
	if err := nc.Publish("a", nil); err != nil {
		t.Errorf("publish after the reconnect: %v", err)
	}
	natstest.Eventually(t, "both in the log", func() error {
		if s := log.String(); !strings.Contains(s, "connection lost") || !strings.Contains(s, "is back") {
			return errors.New(s)
		}
		return nil
	})
}

func TestConnectTLS(t *testing.T) {
	t.Parallel()
	ca, cert, key := connectCertificates(t)
	for name, first := range map[string]bool{"AfterInfo": false, "First": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := connectServer(t, &server.Options{
				TLSConfig: connectServerTLS(t, ca, cert, key), TLSVerify: true, TLS: true, TLSTimeout: natstest.Patience.Seconds(),
				TLSHandshakeFirst: first,
			})
			url := "nats://" + srv.Addr().String()
			nc := connectTo(t, jetstream.ConnectConfig{
				URL: url, TLSCA: ca, TLSCert: cert, TLSKey: key, TLSFirst: first,
			})
			if _, err := nc.TLSConnectionState(); err != nil {
				t.Errorf("no TLS: %v", err)
			}
			if _, err := jetstream.Connect(t.Context(), jetstream.ConnectConfig{
				URL: url, TLSFirst: first, Wait: 200 * time.Millisecond,
			}); err == nil {
				t.Error("connected without the CA")
			}
		})
	}
	t.Run("NotACertificate", func(t *testing.T) {
		t.Parallel()
		_, err := jetstream.Connect(t.Context(), jetstream.ConnectConfig{
			TLSCA: connectFile(t, "ca.pem", []byte("hello")), Wait: time.Hour,
		})
		if err == nil || !strings.Contains(err.Error(), "ca.pem") {
			t.Errorf("got %v", err)
		}
	})
}

// Not parallel: the context's place comes from the environment.
//
//nolint:paralleltest // t.Setenv
func TestConnectContext(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", dir)
	t.Setenv("ROSSBY_TEST_DIR", dir)
	if err := os.MkdirAll(filepath.Join(dir, "nats", "context"), 0o700); err != nil {
		t.Fatal(err)
	}
	save := func(name, content string) {
		t.Helper()
		path := filepath.Join(dir, "nats", "context", name+".json")
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	srv := connectServer(t, &server.Options{Users: []*server.User{
		{Username: "alice", Password: "hush"},
		{Username: "bob", Password: "psst"},
	}})
	url := srv.ClientURL()

	t.Run("IsUsed", func(t *testing.T) {
		save("ours", `{"description": "x", "url": "`+url+`", "user": "alice", "password": "hush",
			"inbox_prefix": "_INBOX_alice", "color_scheme": "blue"}`)
		nc := connectTo(t, jetstream.ConnectConfig{Context: "ours"})
		if got := nc.Opts.User + " " + nc.Opts.InboxPrefix; got != "alice _INBOX_alice" {
			t.Errorf("connected as %q", got)
		}
	})
	t.Run("IsOverridden", func(t *testing.T) {
		save("elsewhere", `{"url": "nats://127.0.0.1:1", "token": "x", "inbox_prefix": "_INBOX_x"}`)
		nc := connectTo(t, jetstream.ConnectConfig{
			Context: "elsewhere", URL: url, User: "bob", Password: "psst", InboxPrefix: "_INBOX_bob",
		})
		if got := nc.Opts.User + nc.Opts.Token + " " + nc.Opts.InboxPrefix; got != "bob _INBOX_bob" {
			t.Errorf("connected as %q", got)
		}
	})
	t.Run("FilesAreExpanded", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(dir, "a.creds"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		save("creds", `{"creds": "$ROSSBY_TEST_DIR/a.creds", "ca": "~/no-such-file-of-rossby"}`)
		home := filepath.Join(dir, "home")
		t.Setenv("HOME", home)
		got := jetstream.ConnectConfig{Context: "creds"}.Validate()
		want := filepath.Join(home, "no-such-file-of-rossby")
		if got == nil || !strings.Contains(got.Error(), want) || strings.Contains(got.Error(), "a.creds") {
			t.Errorf("got %v", got)
		}
	})

	save("proxy", `{"socks_proxy": "socks5://x", "jetstream_domain": "hub"}`)
	save("broken", `{"url": `)
	for name, want := range map[string]string{
		"missing": "missing.json",
		"proxy":   "socks_proxy, jetstream_domain",
		"broken":  "damaged",
		"../ours": "not the name",
	} {
		t.Run("Refused "+strings.ReplaceAll(name, "/", "_"), func(t *testing.T) {
			_, err := jetstream.Connect(t.Context(), jetstream.ConnectConfig{Context: name})
			e, ok := errors.AsType[*jetstream.InvalidError](err)
			if !ok || e.Field != "ConnectConfig.Context" || e.Value != name || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestConnectConfigValidate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := connectFile(t, "there", []byte("x"))
	for name, tc := range map[string]struct {
		cfg  jetstream.ConnectConfig
		want []string // In this order; none is valid.
	}{
		"Zero":        {},
		"NoScheme":    {cfg: jetstream.ConnectConfig{URL: "localhost:4222"}},
		"Several":     {cfg: jetstream.ConnectConfig{URL: "nats://a, tls://b:1,ws://c"}},
		"Files":       {cfg: jetstream.ConnectConfig{Creds: file, TLSCA: file, TLSCert: file, TLSKey: file}},
		"UserNoPass":  {cfg: jetstream.ConnectConfig{User: "alice"}},
		"Scheme":      {jetstream.ConnectConfig{URL: "http://a"}, []string{`URL "http://a"`}},
		"NoHost":      {jetstream.ConnectConfig{URL: "nats://:4222"}, []string{`URL "nats://:4222"`}},
		"OnlyCommas":  {jetstream.ConnectConfig{URL: " , "}, []string{`URL " , "`}},
		"NotAURL":     {jetstream.ConnectConfig{URL: "nats://x:pw@a b:%"}, []string{`URL "xxxxx@a b:%"`}},
		"Two ways in": {jetstream.ConnectConfig{Creds: file, Token: "t0k"}, []string{`"Creds, Token"`}},
		"Password":    {jetstream.ConnectConfig{Password: "pw"}, []string{`User ""`}},
		"CertNoKey":   {jetstream.ConnectConfig{TLSCert: file}, []string{"TLSKey"}},
		"Inbox":       {jetstream.ConnectConfig{InboxPrefix: "a.*"}, []string{`InboxPrefix "a.*"`}},
		"InboxDot":    {jetstream.ConnectConfig{InboxPrefix: "a."}, []string{`InboxPrefix "a."`}},
		"Wait":        {jetstream.ConnectConfig{Wait: -time.Second}, []string{`Wait "-1s"`}},
		"AllAtOnce": {
			jetstream.ConnectConfig{
				URL: "http://a,nats://alice:pw@", Creds: dir, TLSCA: "/no/such/file", Wait: -1,
			},
			[]string{`URL "http://a"`, `URL "nats://alice:xxxxx@"`, `Wait "-1ns"`, `Creds "` + dir, `TLSCA "/no/such/file"`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := tc.cfg.Validate()
			if len(tc.want) == 0 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil {
				t.Fatal("valid")
			}
			lines := strings.Split(err.Error(), "\n")
			if len(lines) != len(tc.want) {
				t.Fatalf("%d errors, want %d:\n%v", len(lines), len(tc.want), err)
			}
			for i, want := range tc.want {
				if !strings.Contains(lines[i], want) {
					t.Errorf("%q does not name %q", lines[i], want)
				}
			}
			if strings.Contains(err.Error(), "pw") || strings.Contains(err.Error(), "t0k") {
				t.Errorf("shows a secret: %v", err)
			}
			if nc, err := jetstream.Connect(t.Context(), tc.cfg); err == nil {
				nc.Close()
				t.Error("connected")
			}
		})
	}
}

// connectTo connects and closes at the end of the test.
func connectTo(t *testing.T, cfg jetstream.ConnectConfig) *nats.Conn {
	t.Helper()
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Wait = natstest.Patience
	nc, err := jetstream.Connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// connectServer runs a plain server, without JetStream.
func connectServer(t *testing.T, opts *server.Options) *server.Server {
	t.Helper()
	opts.Host, opts.Port, opts.NoSigs, opts.NoLog = "127.0.0.1", server.RANDOM_PORT, true, true
	opts.AuthTimeout = natstest.Patience.Seconds()
	srv, err := server.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() {
		srv.Shutdown()
		srv.WaitForShutdown()
	})
	if !srv.ReadyForConnections(natstest.Patience) {
		t.Fatal("server is not ready")
	}
	return srv
}

func connectFile(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// connectCertificates makes one certificate that is its own authority and serves both
// sides, and returns its files.
func connectCertificates(t *testing.T) (ca, cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "rossby"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert = connectFile(t, "cert.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	key = connectFile(t, "key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
	return cert, cert, key
}

func connectServerTLS(t *testing.T, ca, cert, key string) *tls.Config {
	t.Helper()
	cfg, err := server.GenTLSConfig(&server.TLSConfigOpts{
		CertFile: cert, KeyFile: key, CaFile: ca, Verify: true, Timeout: natstest.Patience.Seconds(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// connectDialer closes first after the first dial.
type connectDialer struct {
	first chan struct{}
	once  sync.Once
}

func (d *connectDialer) Dial(network, address string) (net.Conn, error) {
	conn, err := net.DialTimeout(network, address, natstest.Patience)
	d.once.Do(func() { close(d.first) })
	return conn, err
}

// connectLog is a log that tests may read while others write it.
type connectLog struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *connectLog) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *connectLog) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *connectLog) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }
