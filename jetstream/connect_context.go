package jetstream

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// connectContext is a context of the nats command (NATS ADR-21).
type connectContext struct {
	URL         string `json:"url"`
	User        string `json:"user"`
	Password    string `json:"password"`
	Token       string `json:"token"`
	Creds       string `json:"creds"`
	NKey        string `json:"nkey"`
	Cert        string `json:"cert"`
	Key         string `json:"key"`
	CA          string `json:"ca"`
	InboxPrefix string `json:"inbox_prefix"`
	TLSFirst    bool   `json:"tls_first"`

	// To ignore one of these would connect elsewhere or as somebody else.
	SocksProxy    string `json:"socks_proxy"`
	NSC           string `json:"nsc"`
	UserJWT       string `json:"user_jwt"`
	UserSeed      string `json:"user_seed"`
	JSDomain      string `json:"jetstream_domain"`
	JSAPIPrefix   string `json:"jetstream_api_prefix"`
	JSEventPrefix string `json:"jetstream_event_prefix"`
	WinCertStore  string `json:"windows_cert_store"`
}

// merged is the configuration with the context's values where it has none.
func (c ConnectConfig) merged() (ConnectConfig, error) {
	if c.Context == "" {
		return c, nil
	}
	saved, err := readConnectContext(c.Context)
	if err != nil {
		return c, err
	}
	c.URL = cmp.Or(c.URL, saved.URL)
	c.InboxPrefix = cmp.Or(c.InboxPrefix, saved.InboxPrefix)
	c.TLSCA = cmp.Or(c.TLSCA, saved.CA)
	c.TLSFirst = c.TLSFirst || saved.TLSFirst
	if c.TLSCert == "" && c.TLSKey == "" {
		c.TLSCert, c.TLSKey = saved.Cert, saved.Key
	}
	if len(c.credentials()) > 0 {
		return c, nil
	}
	// The order of the nats command, where several are set.
	switch {
	case saved.User != "":
		c.User, c.Password = saved.User, cmp.Or(c.Password, saved.Password)
	case saved.Creds != "":
		c.Creds = saved.Creds
	case saved.NKey != "":
		c.NKeySeedFile = saved.NKey
	default:
		c.Token = saved.Token
	}
	return c, nil
}

func readConnectContext(name string) (connectContext, error) {
	var saved connectContext
	bad := func(format string, args ...any) (connectContext, error) {
		return connectContext{}, &InvalidError{
			Field: "ConnectConfig.Context", Value: name, Reason: fmt.Sprintf(format, args...),
		}
	}
	if strings.ContainsAny(name, `/\`) || strings.Contains(name, "..") {
		return bad("is not the name of a context")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = ""
	}
	parent := os.Getenv("XDG_CONFIG_HOME")
	if parent == "" {
		if home == "" {
			return bad("cannot be looked up: %v", err)
		}
		parent = filepath.Join(home, ".config")
	}
	path := filepath.Join(parent, "nats", "context", name+".json")
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return bad("is not a context: there is no %s (nats context ls lists those there are)", path)
	}
	if err != nil {
		return bad("cannot be read: %v", err)
	}
	if err := json.Unmarshal(data, &saved); err != nil {
		return bad("is damaged: %s: %v", path, err)
	}
	if fields := saved.unsupported(); len(fields) > 0 {
		return bad("sets %s in %s, which Rossby cannot do", strings.Join(fields, ", "), path)
	}
	for _, file := range []*string{&saved.Creds, &saved.NKey, &saved.Cert, &saved.Key, &saved.CA} {
		if rest, ok := strings.CutPrefix(*file, "~"); ok && home != "" {
			*file = home + rest
		}
	}
	saved.Creds = os.ExpandEnv(saved.Creds)
	return saved, nil
}

// unsupported are the fields that are set and that Rossby has nothing for.
func (s connectContext) unsupported() []string {
	var out []string
	for _, f := range []struct{ field, value string }{
		{"socks_proxy", s.SocksProxy},
		{"nsc", s.NSC},
		{"user_jwt", s.UserJWT},
		{"user_seed", s.UserSeed},
		{"jetstream_domain", s.JSDomain},
		{"jetstream_api_prefix", s.JSAPIPrefix},
		{"jetstream_event_prefix", s.JSEventPrefix},
		{"windows_cert_store", s.WinCertStore},
	} {
		if f.value != "" {
			out = append(out, f.field)
		}
	}
	return out
}
