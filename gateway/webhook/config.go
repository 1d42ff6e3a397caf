package webhook

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/rossby-go/rossby/jetstream"
)

// Defaults of [Config].
const (
	// TimeoutDefault is below a gateway's, so that the gateway learns why.
	TimeoutDefault     = 20 * time.Second
	MaxResponseDefault = 64 << 10
	MaxRequestDefault  = 1 << 20
)

// Mode is how an event is written into a request.
type Mode uint8

// The modes of CloudEvents' HTTP binding.
const (
	// Structured is one JSON document, application/cloudevents+json. The default.
	Structured Mode = iota
	// Binary is the event's JSON as the body and the rest in headers that begin with
	// "ce-".
	Binary
)

// Config describes a webhook. URL and Secrets are required.
type Config struct {
	// AllowNetworks are networks whose addresses are allowed though they are not of
	// the public internet, such as 127.0.0.0/8 in tests or 10.1.0.0/16 within a
	// company. Defaults to none.
	AllowNetworks []netip.Prefix
	// Header is added to each request; it cannot take the place of what the webhook
	// sets itself.
	Header http.Header
	// InsecureHTTP allows URLs of http: what is sent can be read on its way. The
	// signature still shows changes.
	InsecureHTTP bool
	// MaxRequest bounds the body that is sent; a larger event is a permanent failure.
	// Defaults to [MaxRequestDefault].
	MaxRequest int
	// MaxResponse bounds what is read of an answer. Defaults to [MaxResponseDefault].
	MaxResponse int64
	// Mode is how events are written. Defaults to [Structured].
	Mode Mode
	// Permanent tells the status codes that no retry mends. Defaults to [Permanent].
	Permanent func(code int) bool
	// Secrets sign the requests, each "whsec_" and 24 to 64 bytes in base64; without
	// the prefix is fine, too. All of them sign, so a secret is replaced by adding the
	// new one, then telling the receiver, then removing the old one.
	Secrets []string
	// Source is the CloudEvents source. Defaults to "/" and the store's name.
	Source string
	// Timeout bounds one attempt, connecting and answer included. Defaults to
	// [TimeoutDefault].
	Timeout time.Duration
	// TLS is cloned. Defaults to Go's, with TLS 1.2 at least.
	TLS *tls.Config
	// TypePrefix stands before the CloudEvents type, which is the aggregate type, a
	// dot, and the event's name: "account.opened". Defaults to none.
	TypePrefix string
	// URL is where to.
	URL string
}

// Permanent are the codes that speak of the message, not of the receiver: the
// same message will get the same answer. 401, 403, 404 and 410 are not among them:
// they would park everything, one aggregate after the other, for what is wrong
// with the receiver or with the configuration.
func Permanent(code int) bool {
	switch code {
	case http.StatusBadRequest, http.StatusNotAcceptable, http.StatusLengthRequired,
		http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity,
		http.StatusRequestHeaderFieldsTooLarge, http.StatusUnavailableForLegalReasons:
		return true
	}
	return false
}

// Validate reports every field that [New] would refuse, joined.
func (c Config) Validate() error {
	var errs []error
	bad := func(field, value, reason string) {
		errs = append(errs, &jetstream.InvalidError{Field: field, Value: value, Reason: reason})
	}
	switch u, err := url.Parse(c.URL); {
	case err != nil:
		bad("URL", c.URL, "is not a URL: "+err.Error())
	case u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		bad("URL", c.URL, "is not an absolute URL of https")
	case u.Scheme == "http" && !c.InsecureHTTP:
		bad("URL", c.URL, "is of http: use https, or set InsecureHTTP")
	case u.User != nil:
		bad("URL", u.Redacted(), "holds a password: use Header")
	}
	if len(c.Secrets) == 0 {
		bad("Secrets", "", "are missing")
	}
	if _, err := signers(c.Secrets); err != nil {
		errs = append(errs, err)
	}
	for name, values := range c.Header {
		if reserved(name) {
			bad("Header", name, "is set by the webhook itself")
		}
		if name == "" || strings.ContainsAny(name+strings.Join(values, ""), "\r\n\x00") {
			bad("Header", name, "is not a header")
		}
	}
	if c.Mode > Binary {
		bad("Mode", fmt.Sprint(c.Mode), "is not known")
	}
	if c.MaxRequest < 0 {
		bad("MaxRequest", strconv.Itoa(c.MaxRequest), "is negative")
	}
	if c.MaxResponse < 0 {
		bad("MaxResponse", strconv.FormatInt(c.MaxResponse, 10), "is negative")
	}
	if c.Timeout < 0 {
		bad("Timeout", c.Timeout.String(), "is negative")
	}
	if _, err := url.Parse(c.Source); err != nil {
		bad("Source", c.Source, "is not a URI reference")
	}
	for _, p := range c.AllowNetworks {
		if !p.IsValid() {
			bad("AllowNetworks", p.String(), "is not a network")
		}
	}
	return errors.Join(errs...)
}

// reserved tells headers that a configuration must not set.
func reserved(name string) bool {
	name = textproto.CanonicalMIMEHeaderKey(name)
	switch name {
	case "Content-Type", "Content-Length", "Host", "Idempotency-Key", "Traceparent", "Transfer-Encoding", "Connection":
		return true
	}
	return strings.HasPrefix(name, "Webhook-") || strings.HasPrefix(name, "Ce-")
}

func (c Config) withDefaults() Config {
	c.MaxRequest = cmp.Or(c.MaxRequest, MaxRequestDefault)
	c.MaxResponse = cmp.Or(c.MaxResponse, MaxResponseDefault)
	c.Timeout = cmp.Or(c.Timeout, TimeoutDefault)
	if c.Permanent == nil {
		c.Permanent = Permanent
	}
	return c
}
