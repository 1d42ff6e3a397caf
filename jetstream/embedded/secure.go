package embedded

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"

	"github.com/rossby-go/rossby/jetstream"
	"github.com/rossby-go/rossby/jetstream/roles"
)

// account is the name of the account of users with credentials.
const account = "ROSSBY"

// certificatesHold is how long generated certificates are good.
const certificatesHold = 30 * 24 * time.Hour

// secured is what a server's users log in with.
type secured struct {
	dir         string
	credentials bool
	users       []roles.User
}

func (s *secured) path(name string) string { return filepath.Join(s.dir, name) }

// secure makes the server's authority, its certificate and what the users log in
// with, and sets the options for them.
func secure(cfg Config, opts *server.Options) (*secured, error) {
	s := &secured{dir: filepath.Join(cfg.StoreDir, "secure"), credentials: cfg.Credentials, users: slices.Clone(cfg.Users)}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, err
	}
	ca, err := newAuthority()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(s.path("_ca.pem"), ca.pem(), 0o600); err != nil {
		return nil, err
	}
	pair, err := ca.issue(s.path("_server"), opts.Host, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(ca.cert)
	opts.TLSConfig = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, MinVersion: tls.VersionTLS12}
	opts.TLSTimeout = cfg.ReadyTimeout.Seconds()
	if s.credentials {
		return s, s.byCredentials(opts)
	}
	return s, s.byCertificates(ca, opts)
}

// byCertificates maps the names in client certificates to users.
func (s *secured) byCertificates(ca *authority, opts *server.Options) error {
	opts.TLSVerify, opts.TLSMap = true, true
	opts.TLSConfig.ClientAuth = tls.RequireAndVerifyClientCert
	for _, u := range s.users {
		if _, err := ca.issue(s.path(u.Name), u.Name, x509.ExtKeyUsageClientAuth); err != nil {
			return err
		}
		p := u.Permissions()
		user := &server.User{Username: "CN=" + u.Name, Permissions: &server.Permissions{
			Publish: &server.SubjectPermission{Allow: p.Publish}, Subscribe: &server.SubjectPermission{Allow: p.Subscribe},
		}}
		if p.Responses > 0 {
			user.Permissions.Response = &server.ResponsePermission{MaxMsgs: p.Responses, Expires: roles.ResponseTime}
		}
		opts.Users = append(opts.Users, user)
	}
	return nil
}

// byCredentials is an operator with one account, beside that of the system. Their
// keys are kept: a server keeps data by the account's.
func (s *secured) byCredentials(opts *server.Options) error {
	keys := map[string]nkeys.KeyPair{}
	public := map[string]string{}
	for name, create := range map[string]func() (nkeys.KeyPair, error){
		"operator": nkeys.CreateOperator, "system": nkeys.CreateAccount, "account": nkeys.CreateAccount,
	} {
		key, err := keptKey(s.path("_"+name+".nk"), create)
		if err != nil {
			return err
		}
		if public[name], err = key.PublicKey(); err != nil {
			return err
		}
		keys[name] = key
	}
	operator := jwt.NewOperatorClaims(public["operator"])
	operator.Name, operator.SystemAccount = "rossby-embedded", public["system"]
	resolver := &server.MemAccResolver{}
	for _, name := range []string{"system", "account"} {
		claims := jwt.NewAccountClaims(public[name])
		claims.Name = name
		if name == "account" {
			claims.Name = account
			claims.Limits.JetStreamLimits = jwt.JetStreamLimits{
				MemoryStorage: jwt.NoLimit, DiskStorage: jwt.NoLimit, Streams: jwt.NoLimit, Consumer: jwt.NoLimit,
			}
		}
		token, err := claims.Encode(keys["operator"])
		if err != nil {
			return err
		}
		if err := resolver.Store(public[name], token); err != nil {
			return err
		}
	}
	opts.MaxControlLine = roles.MaxControlLine
	opts.TrustedOperators, opts.AccountResolver, opts.SystemAccount =
		[]*jwt.OperatorClaims{operator}, resolver, public["system"]
	for _, u := range s.users {
		data, err := u.Credentials(keys["account"], "", 0)
		if err != nil {
			return err
		}
		if err := os.WriteFile(s.path(u.Name+".creds"), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// keptKey reads a key, or makes and keeps one.
//
//nolint:ireturn // nkeys has no other
func keptKey(path string, create func() (nkeys.KeyPair, error)) (nkeys.KeyPair, error) {
	seed, err := os.ReadFile(path)
	if err == nil {
		return nkeys.FromSeed(seed)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key, err := create()
	if err != nil {
		return nil, err
	}
	if seed, err = key.Seed(); err != nil {
		return nil, err
	}
	return key, os.WriteFile(path, seed, 0o600)
}

// ConnectConfig is how one of [Config.Users] connects. Returns an error for a name
// that is not one of theirs.
func (s *Server) ConnectConfig(user string) (jetstream.ConnectConfig, error) {
	if s.secured != nil {
		for _, u := range s.secured.users {
			if u.Name != user {
				continue
			}
			cfg := jetstream.ConnectConfig{
				URL: s.URL(), Name: user, InboxPrefix: u.InboxPrefix(), TLSCA: s.secured.path("_ca.pem"),
			}
			if s.secured.credentials {
				cfg.Creds = s.secured.path(user + ".creds")
			} else {
				cfg.TLSCert, cfg.TLSKey = s.secured.path(user+".pem"), s.secured.path(user+".key")
			}
			return cfg, nil
		}
	}
	return jetstream.ConnectConfig{}, fmt.Errorf("embedded: %q is none of the server's users", user)
}

// authority signs the certificates of one server and its users, until the process
// ends: nobody keeps its key.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	next int64
}

func newAuthority() (*authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Rossby embedded authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(certificatesHold),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &authority{cert: cert, key: key, next: 2}, err
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// issue makes a certificate for a name, a host's or a user's, and writes it with
// its key to path.pem and path.key.
func (a *authority) issue(path, name string, usage x509.ExtKeyUsage) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.next), Subject: pkix.Name{CommonName: name},
		NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}
	a.next++
	if usage == x509.ExtKeyUsageServerAuth {
		template.DNSNames = []string{"localhost"}
		template.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if name != "" {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return tls.Certificate{}, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return tls.Certificate{}, err
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	err = errors.Join(os.WriteFile(path+".pem", certPEM, 0o600), os.WriteFile(path+".key", keyPEM, 0o600))
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.X509KeyPair(certPEM, keyPEM)
}
