// Package mail sends e-mail about events by SMTP.
//
//	mailer, err := mail.New(mail.Config{Host: "smtp.example.com", From: "bank@example.com", Username: …, Password: …})
//	gw, err := gateway.New(store, "letters", gateway.Config{Start: jetstream.FromNow()},
//		gateway.On(customer.Events, mail.Send(mailer, func(e customer.Created, d gateway.Delivery) (*mail.Message, error) {
//			return &mail.Message{To: []string{e.Email}, Subject: "Welcome", Text: "Hello " + e.Name}, nil
//		})))
//
// SMTP knows no idempotency keys: a mail whose acceptance got lost is sent again. The
// Message-ID is made of the key, so that it is the same then, by which many servers
// and programs show one of both.
package mail

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/mail"
	"strconv"
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"

	"github.com/rossby-go/rossby/gateway"
	"github.com/rossby-go/rossby/jetstream"
)

// Defaults of [Config].
const (
	PortDefault    = 587
	TimeoutDefault = 20 * time.Second
)

// Security is how a connection is protected.
type Security uint8

// The ways.
const (
	// StartTLS begins in the clear and refuses to go on without TLS. The default.
	StartTLS Security = iota
	// ImplicitTLS is TLS from the beginning, commonly on port 465.
	ImplicitTLS
	// NoTLS sends everything in the clear, a password too: for servers on this
	// machine.
	NoTLS
)

// Config describes an SMTP server. Host and From are required.
type Config struct {
	// From is the sender, "bank@example.com" or "The Bank <bank@example.com>".
	From string
	// Host and Port are the server's. Port defaults to [PortDefault].
	Host string
	Port int
	// Security defaults to [StartTLS].
	Security Security
	// Timeout bounds one attempt. Defaults to [TimeoutDefault].
	Timeout time.Duration
	// TLS is used as it is. Defaults to TLS 1.2 at least and the host's name.
	TLS *tls.Config
	// Username and Password log in, by whichever way the server offers that does not
	// show the password in the clear. Without, nobody logs in.
	Username, Password string
}

// Validate reports every field that [New] would refuse, joined.
func (c Config) Validate() error {
	var errs []error
	bad := func(field, value, reason string) {
		errs = append(errs, &jetstream.InvalidError{Field: field, Value: value, Reason: reason})
	}
	if c.Host == "" || strings.ContainsAny(c.Host, " \t\r\n/") {
		bad("Host", c.Host, "is not a host")
	}
	if c.Port < 0 || c.Port > 1<<16-1 {
		bad("Port", strconv.Itoa(c.Port), "is not a port")
	}
	if _, err := mail.ParseAddress(c.From); err != nil {
		bad("From", c.From, "is not an address: "+err.Error())
	}
	if c.Security > NoTLS {
		bad("Security", strconv.Itoa(int(c.Security)), "is not known")
	}
	if c.Timeout < 0 {
		bad("Timeout", c.Timeout.String(), "is negative")
	}
	if (c.Username == "") != (c.Password == "") {
		bad("Username", c.Username, "and Password go together")
	}
	return errors.Join(errs...)
}

// Message is a mail.
type Message struct {
	// To, Cc and Bcc are the receivers; To must have one.
	To, Cc, Bcc []string
	// ReplyTo is where answers go. Defaults to the sender.
	ReplyTo string
	Subject string
	// Text and HTML are the same in two forms; one of them is enough.
	Text, HTML string
}

// Mailer sends mail through one server. It is safe for concurrent use; each mail
// has a connection of its own.
type Mailer struct {
	cfg    Config
	domain string
}

// New makes a mailer. Returns the configuration's mistakes, joined.
func New(cfg Config) (*Mailer, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("mail: %w", err)
	}
	cfg.Port = cmp.Or(cfg.Port, PortDefault)
	cfg.Timeout = cmp.Or(cfg.Timeout, TimeoutDefault)
	from, err := mail.ParseAddress(cfg.From)
	if err != nil {
		return nil, fmt.Errorf("mail: %w", err)
	}
	return &Mailer{cfg: cfg, domain: from.Address[strings.LastIndexByte(from.Address, '@')+1:]}, nil
}

// Send makes a handler for [gateway.On]: compose writes the mail about an event, nil
// for none. An error of compose, an address that is none, and what the server refuses
// for good (5xx) are permanent failures; what it refuses for now (4xx), a server that
// is away, or one that does not let us in are tried again.
func Send[E any](
	m *Mailer, compose func(event E, d gateway.Delivery) (*Message, error),
) func(ctx context.Context, event E, d gateway.Delivery) error {
	return func(ctx context.Context, event E, d gateway.Delivery) error {
		message, err := compose(event, d)
		if err != nil {
			return gateway.Permanent(fmt.Errorf("mail: compose: %w", err))
		}
		if message == nil {
			return nil
		}
		return m.send(ctx, message, d)
	}
}

func (m *Mailer) send(ctx context.Context, message *Message, d gateway.Delivery) error {
	msg, err := m.write(message, d)
	if err != nil {
		return gateway.Permanent(fmt.Errorf("mail: %w", err))
	}
	client, err := m.client()
	if err != nil {
		return fmt.Errorf("mail: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, m.cfg.Timeout)
	defer cancel()
	if err := client.DialAndSendWithContext(ctx, msg); err != nil {
		if msg.IsDelivered() {
			return nil // what failed came after
		}
		return classify(fmt.Errorf("mail: %w", err))
	}
	return nil
}

func (m *Mailer) client() (*gomail.Client, error) {
	options := []gomail.Option{
		gomail.WithPort(m.cfg.Port), gomail.WithTimeout(m.cfg.Timeout), gomail.WithoutNoop(),
	}
	config := m.cfg.TLS
	if config == nil {
		config = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: m.cfg.Host}
	}
	options = append(options, gomail.WithTLSConfig(config))
	switch m.cfg.Security {
	case ImplicitTLS:
		options = append(options, gomail.WithSSL())
	case NoTLS:
		options = append(options, gomail.WithTLSPolicy(gomail.NoTLS))
	case StartTLS:
		options = append(options, gomail.WithTLSPolicy(gomail.TLSMandatory))
	}
	if m.cfg.Username != "" {
		how := gomail.SMTPAuthAutoDiscover
		if m.cfg.Security == NoTLS {
			how = gomail.SMTPAuthPlainNoEnc
		}
		options = append(options, gomail.WithSMTPAuth(how),
			gomail.WithUsername(m.cfg.Username), gomail.WithPassword(m.cfg.Password))
	}
	return gomail.NewClient(m.cfg.Host, options...)
}

// write writes the message down. Addresses and headers are checked and encoded by
// the library.
func (m *Mailer) write(message *Message, d gateway.Delivery) (*gomail.Msg, error) {
	msg := gomail.NewMsg()
	errs := []error{msg.From(m.cfg.From), msg.To(message.To...), msg.Cc(message.Cc...), msg.Bcc(message.Bcc...)}
	if message.ReplyTo != "" {
		errs = append(errs, msg.ReplyTo(message.ReplyTo))
	}
	if len(message.To) == 0 {
		errs = append(errs, &jetstream.InvalidError{Field: "To", Reason: "is empty"})
	}
	if message.Text == "" && message.HTML == "" {
		errs = append(errs, &jetstream.InvalidError{Field: "Text", Reason: "and HTML are empty"})
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	msg.Subject(strings.NewReplacer("\r", " ", "\n", " ").Replace(message.Subject))
	msg.SetDateWithValue(d.Time)
	msg.SetMessageIDWithValue(d.IdempotencyKey + "@" + m.domain)
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: no automatic answers
	if message.Text != "" {
		msg.SetBodyString(gomail.TypeTextPlain, message.Text)
	}
	switch {
	case message.HTML != "" && message.Text != "":
		msg.AddAlternativeString(gomail.TypeTextHTML, message.HTML)
	case message.HTML != "":
		msg.SetBodyString(gomail.TypeTextHTML, message.HTML)
	}
	return msg, nil
}

// classify marks what the server will refuse again: an answer of 5xx to the sender,
// a receiver or the message. One to a login is about us and not about the mail.
func classify(err error) error {
	refused, ok := errors.AsType[*gomail.SendError](err)
	if !ok || refused.IsTemp() || refused.ErrorCode() < 500 || refused.ErrorCode() == 530 || refused.ErrorCode() == 535 {
		return err
	}
	switch refused.Reason {
	case gomail.ErrSMTPMailFrom, gomail.ErrSMTPRcptTo, gomail.ErrSMTPData, gomail.ErrSMTPDataClose:
		return gateway.Permanent(err)
	default:
		return err
	}
}
