package jetstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/rossby-go/rossby/internal/wire"
)

const (
	// ConnectWaitDefault is how long [Connect] waits for the first connection.
	ConnectWaitDefault = 10 * time.Second

	connectAttempt      = 2 * time.Second
	connectFirstPause   = 50 * time.Millisecond
	connectLongestPause = time.Second
)

// ConnectConfig says how to reach NATS. The zero value connects to
// nats://127.0.0.1:4222. At most one of Creds, NKeySeedFile, User and Token may
// be set.
type ConnectConfig struct {
	// Context is the name of a context of the nats command, a file
	// nats/context/<name>.json below $XDG_CONFIG_HOME or ~/.config. What is set
	// here goes before what stands there: any of Creds, NKeySeedFile, User and
	// Token replaces every credential of the context. A context that asks for
	// something Rossby cannot do, such as a SOCKS proxy or a JetStream domain, is
	// an error. Defaults to "", no context.
	Context string
	// Creds is a file with a user's JWT and key. It is read at each connect.
	Creds string
	// InboxPrefix begins the subjects of replies, for permissions that give each
	// client inboxes of its own. Defaults to "_INBOX".
	InboxPrefix string
	// Logger gets what happens to the connection in the background. Defaults to
	// slog.Default().
	Logger *slog.Logger
	// NKeySeedFile is a file with a user's NKey seed. It is read at each connect.
	NKeySeedFile string
	// Name is the client's name as the server shows it. Defaults to the program's.
	Name string
	// Options are applied after everything above, such as an in-process server.
	Options []nats.Option
	// Password goes with User.
	Password string
	// TLSCA is a file of the certificates that a server's must be signed by.
	// Defaults to "", the system's.
	TLSCA string
	// TLSCert and TLSKey are the files of the client's own certificate.
	TLSCert, TLSKey string
	// TLSFirst starts TLS before the server's greeting. Servers must be set to
	// the same (handshake_first).
	TLSFirst bool
	// Token is a server's shared secret.
	Token string
	// URL is the server's address or several, comma separated. Defaults to that
	// of Context or else to nats.DefaultURL.
	URL string
	// User logs in with Password.
	User string
	// Wait bounds the time until the first connection stands; the caller's
	// context does, too. Defaults to [ConnectWaitDefault].
	Wait time.Duration
}

// Validate reports everything that [Connect] would refuse before it dials, each
// as an [*InvalidError] that names field and value. It reads the context and
// looks whether the files are there. Secrets are never shown.
func (c ConnectConfig) Validate() error {
	merged, err := c.merged()
	return errors.Join(err, merged.check())
}

// check validates what is left when the context has been merged in.
func (c ConnectConfig) check() error {
	var errs []error
	bad := func(field, value, reason string) {
		errs = append(errs, &InvalidError{Field: "ConnectConfig." + field, Value: value, Reason: reason})
	}
	for _, address := range connectAddresses(c.URL) {
		if reason := connectURLFault(address); reason != "" {
			bad("URL", connectRedacted(address), reason)
		}
	}
	if c.URL != "" && len(connectAddresses(c.URL)) == 0 {
		bad("URL", c.URL, "names no server")
	}
	if ways := c.credentials(); len(ways) > 1 {
		bad("Creds", strings.Join(ways, ", "), "are alternatives: set one")
	}
	if c.Password != "" && c.User == "" {
		bad("User", "", "is missing: Password is set")
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		bad("TLSCert", c.TLSCert, fmt.Sprintf("goes with TLSKey, which is %q: set both or none", c.TLSKey))
	}
	if c.InboxPrefix != "" && !connectLiteral(c.InboxPrefix) {
		bad("InboxPrefix", c.InboxPrefix, "is not a literal subject")
	}
	if c.Wait < 0 {
		bad("Wait", c.Wait.String(), "is negative")
	}
	for _, f := range []struct{ field, path string }{
		{"Creds", c.Creds},
		{"NKeySeedFile", c.NKeySeedFile},
		{"TLSCA", c.TLSCA},
		{"TLSCert", c.TLSCert},
		{"TLSKey", c.TLSKey},
	} {
		if f.path == "" {
			continue
		}
		switch info, err := os.Stat(f.path); {
		case err != nil:
			bad(f.field, f.path, fmt.Sprintf("cannot be read: %v", err))
		case info.IsDir():
			bad(f.field, f.path, "is a directory")
		}
	}
	return errors.Join(errs...)
}

// credentials are the names of the fields by which this client would log in.
func (c ConnectConfig) credentials() []string {
	var ways []string
	for _, w := range []struct{ field, value string }{
		{"Creds", c.Creds},
		{"NKeySeedFile", c.NKeySeedFile},
		{"User", c.User},
		{"Token", c.Token},
	} {
		if w.value != "" {
			ways = append(ways, w.field)
		}
	}
	return ways
}

// Connect connects to NATS as a program that appends needs it, and returns when
// the connection stands. It tries until Wait or ctx ends; a server that answers
// and refuses the credentials ends it at once.
//
// Afterwards the connection reconnects for ever, even when credentials were
// refused for a while, and what happens to it is logged. While it is down a
// publish fails at once (ReconnectBufSize is -1) instead of being sent at an
// unknown time later. What the server does not permit ends what asked for it at
// once, with a [*PermissionError]; on any other connection it is a timeout. The
// caller closes it.
//
// Returns the errors of [ConnectConfig.Validate], or a [*ConnectError].
func Connect(ctx context.Context, cfg ConnectConfig) (*nats.Conn, error) {
	cfg, err := cfg.merged()
	if err = errors.Join(err, cfg.check()); err != nil {
		return nil, err
	}
	cfg.URL = cmp.Or(cfg.URL, nats.DefaultURL)
	opts, err := cfg.options()
	if err != nil {
		return nil, &ConnectError{Address: connectRedacted(cfg.URL), Cause: err}
	}
	ctx, cancel := context.WithTimeout(ctx, cmp.Or(cfg.Wait, ConnectWaitDefault))
	defer cancel()
	var last error
	for pause := connectFirstPause; ; pause = min(2*pause, connectLongestPause) {
		nc, err := connectOnce(ctx, opts)
		if err == nil {
			return nc, nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		if !connectFinal(err) {
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
				continue
			case <-ctx.Done():
				timer.Stop()
			}
			if !errors.Is(last, ctx.Err()) {
				last = fmt.Errorf("%w (%w)", last, ctx.Err())
			}
		}
		return nil, &ConnectError{Address: connectRedacted(cfg.URL), Cause: last}
	}
}

// connectOnce tries each server once. nats.go takes no context for that, so what
// comes after the end of ctx is closed in the background.
func connectOnce(ctx context.Context, opts nats.Options) (*nats.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	type result struct {
		nc  *nats.Conn
		err error
	}
	done := make(chan result, 1)
	go func() {
		nc, err := opts.Connect()
		done <- result{nc, err}
	}()
	select {
	case r := <-done:
		// nats.go says this of a refused connection, and only of that.
		if errors.Is(r.err, nats.ErrNoServers) {
			return nil, fmt.Errorf("connection refused (%w)", r.err)
		}
		return r.nc, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.nc != nil {
				r.nc.Close()
			}
		}()
		return nil, ctx.Err()
	}
}

// connectFinal tells whether an attempt's error will not pass by itself.
func connectFinal(err error) bool {
	return slices.ContainsFunc([]error{
		nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAuthRevoked, nats.ErrAccountAuthExpired,
	}, func(target error) bool { return errors.Is(err, target) })
}

// options are the options for nats.go. What is wrong with a file is found here,
// not tried again and again.
func (c ConnectConfig) options() (nats.Options, error) {
	merged := nats.GetDefaultOptions()
	merged.Servers = connectAddresses(c.URL)
	opts := []nats.Option{
		nats.Name(cmp.Or(c.Name, filepath.Base(os.Args[0]))),
		nats.Timeout(min(connectAttempt, cmp.Or(c.Wait, ConnectWaitDefault))),
		nats.MaxReconnects(-1),
		nats.ReconnectBufSize(-1),
		nats.IgnoreAuthErrorAbort(),
		nats.PermissionErrOnSubscribe(true),
	}
	opts = append(opts, connectHandlers(cmp.Or(c.Logger, slog.Default()))...)
	switch {
	case c.Creds != "":
		opts = append(opts, nats.UserCredentials(c.Creds))
	case c.NKeySeedFile != "":
		key, err := nats.NkeyOptionFromSeed(c.NKeySeedFile)
		if err != nil {
			return merged, fmt.Errorf("NKey seed file %q: %w", c.NKeySeedFile, err)
		}
		opts = append(opts, key)
	case c.User != "":
		opts = append(opts, nats.UserInfo(c.User, c.Password))
	case c.Token != "":
		opts = append(opts, nats.Token(c.Token))
	}
	if c.TLSCA != "" {
		opts = append(opts, nats.RootCAs(c.TLSCA))
	}
	if c.TLSCert != "" {
		opts = append(opts, nats.ClientCert(c.TLSCert, c.TLSKey))
	}
	if c.TLSFirst {
		opts = append(opts, nats.TLSHandshakeFirst())
	}
	if c.InboxPrefix != "" {
		opts = append(opts, nats.CustomInboxPrefix(c.InboxPrefix))
	}
	opts = append(opts, c.Options...)
	// Connect retries by itself: nats.go would keep the reason of a failure back.
	opts = append(opts, nats.RetryOnFailedConnect(false))
	for _, opt := range opts {
		if opt == nil {
			continue
		}
		if err := opt(&merged); err != nil {
			return merged, err
		}
	}
	wire.WatchDenials(&merged)
	return merged, nil
}

// connectHandlers log what happens to the connection.
func connectHandlers(log *slog.Logger) []nats.Option {
	return []nats.Option{
		nats.ErrorHandler(func(nc *nats.Conn, sub *nats.Subscription, err error) {
			attrs := []any{"server", nc.ConnectedUrlRedacted(), "error", err}
			if sub != nil {
				attrs = append(attrs, "subject", sub.Subject)
			}
			log.Error("NATS reported an error", attrs...)
		}),
		nats.DisconnectErrHandler(func(nc *nats.Conn, err error) {
			if nc.IsClosed() && err == nil {
				return // The program closed it.
			}
			log.Warn("NATS connection lost, reconnecting", "error", err)
		}),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) {
			log.Debug("NATS reconnect failed, trying again", "error", err)
		}),
		nats.ReconnectHandler(func(nc *nats.Conn) {
			log.Info("NATS connection is back", "server", nc.ConnectedUrlRedacted())
		}),
		nats.LameDuckModeHandler(func(nc *nats.Conn) {
			log.Info("NATS server is about to shut down", "server", nc.ConnectedUrlRedacted())
		}),
	}
}

func connectAddresses(list string) []string {
	var out []string
	for address := range strings.SplitSeq(list, ",") {
		if address = strings.TrimSpace(address); address != "" {
			out = append(out, address)
		}
	}
	return out
}

// connectParse reads an address as nats.go does: without a scheme it is nats://.
func connectParse(address string) (*url.URL, error) {
	if !strings.Contains(address, "://") {
		address = "nats://" + address
	}
	u, err := url.Parse(address)
	if err == nil {
		return u, nil
	}
	// The error's text would repeat the address, which may hold a password.
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err
	}
	return nil, err
}

// connectURLFault says what is wrong with an address, or "".
func connectURLFault(address string) string {
	u, err := connectParse(address)
	if err != nil {
		return "is not a URL"
	}
	if !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
		return "has a scheme other than nats, tls, ws and wss"
	}
	if u.Hostname() == "" {
		return "names no host"
	}
	return ""
}

// connectRedacted hides what is secret in a list of addresses: passwords, and
// tokens, which stand where a user would.
func connectRedacted(list string) string {
	addresses := connectAddresses(list)
	for i, address := range addresses {
		u, err := connectParse(address)
		if err != nil {
			// Whatever it is, a secret can only stand before the last @.
			if at := strings.LastIndexByte(address, '@'); at >= 0 {
				addresses[i] = "xxxxx" + address[at:]
			}
			continue
		}
		if u.User == nil {
			continue
		}
		if _, both := u.User.Password(); !both {
			u.User = url.User("xxxxx")
		}
		addresses[i] = u.Redacted()
	}
	return strings.Join(addresses, ",")
}

// connectLiteral tells whether text can begin a literal subject.
func connectLiteral(text string) bool {
	for token := range strings.SplitSeq(text, ".") {
		if token == "" || strings.ContainsAny(token, "*> \t\r\n\f") {
			return false
		}
	}
	return true
}
