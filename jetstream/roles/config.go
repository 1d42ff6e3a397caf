package roles

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nkeys"

	"github.com/rossby-go/rossby/jetstream"
)

// ServerConfig is an account with its users, in the language of nats-server's
// configuration: include the file, or paste it. Stores of different accounts know
// nothing of each other. Returns everything that is wrong with the users, joined.
func ServerConfig(account string, users ...User) (string, error) {
	if err := valid(users); err != nil {
		return "", err
	}
	if !isWord(account) || strings.EqualFold(account, "include") { // which is a word of the language
		return "", &jetstream.InvalidError{
			Field: "account", Value: account, Reason: "is not a name: letters, digits, - and _, a letter first",
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "accounts {\n  %s {\n    jetstream: enabled\n    users: [\n", account)
	for _, u := range users {
		b.WriteString("      {\n")
		switch {
		case u.NKey != "":
			fmt.Fprintf(&b, "        nkey: %s\n", u.NKey)
		default:
			fmt.Fprintf(&b, "        user: %s\n", strconv.Quote(u.login()))
		}
		if u.variable() {
			fmt.Fprintf(&b, "        password: %s\n", u.Password) // a variable
		} else if u.Password != "" {
			fmt.Fprintf(&b, "        password: %s\n", strconv.Quote(u.Password))
		}
		p := u.Permissions()
		fmt.Fprintf(&b, "        # %s: connect with the inbox prefix %s\n", u.describe(), u.InboxPrefix())
		b.WriteString("        permissions: {\n")
		writeList(&b, "publish", p.Publish)
		writeList(&b, "subscribe", p.Subscribe)
		if p.Responses > 0 {
			fmt.Fprintf(&b, "          allow_responses: { max: %d, expires: %q }\n", p.Responses, ResponseTime)
		}
		b.WriteString("        }\n      }\n")
	}
	b.WriteString("    ]\n  }\n}\n")
	return b.String(), nil
}

// isWord tells what stands in the server's configuration without quotes, and means
// itself.
func isWord(text string) bool {
	for i, r := range text {
		letter := r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
		if !letter && (i == 0 || r != '-' && r != '_' && (r < '0' || r > '9')) {
			return false
		}
	}
	return text != ""
}

func writeList(b *strings.Builder, name string, subjects []string) {
	fmt.Fprintf(b, "          %s: { allow: [\n", name)
	for _, s := range subjects {
		fmt.Fprintf(b, "            %s\n", strconv.Quote(s))
	}
	b.WriteString("          ] }\n")
}

func (u User) login() string {
	if u.Login != "" {
		return u.Login
	}
	return u.Name
}

// describe names the roles.
func (u User) describe() string {
	parts := make([]string, len(u.Roles))
	for i, r := range u.Roles {
		parts[i] = strings.TrimSuffix(fmt.Sprintf("%s of %s %s", r.Kind, r.Store, r.Name), " ")
	}
	return strings.Join(parts, ", ")
}

func valid(users []User) error {
	var errs []error
	seen := map[string]bool{}
	for _, u := range users {
		errs = append(errs, u.Validate())
		if seen[u.Name] {
			errs = append(errs, &jetstream.InvalidError{Field: "user name", Value: u.Name, Reason: "stands there twice"})
		}
		seen[u.Name] = true
	}
	if len(users) == 0 {
		errs = append(errs, errors.New("roles: there are no users"))
	}
	return errors.Join(errs...)
}

// MaxControlLine is what to set max_control_line of nats-server to for users with
// JWTs: a client sends its JWT in one line, and the permissions of a program with
// several modules are longer than the 4096 bytes that a server takes by default. It
// refuses the client then: "maximum control line exceeded".
const MaxControlLine = 64 << 10

// NSC is a script for the nsc command that makes the users in an account of the
// operator that nsc works with. The servers need [MaxControlLine]. Returns what
// [ServerConfig] does.
func NSC(account string, users ...User) (string, error) {
	if err := valid(users); err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "#!/bin/sh\n# The servers need: max_control_line: %d\nset -eu\n", MaxControlLine)
	for _, u := range users {
		p := u.Permissions()
		fmt.Fprintf(&b, "\n# %s: connect with the inbox prefix %s\n", u.describe(), u.InboxPrefix())
		fmt.Fprintf(&b, "nsc add user --account %s --name %s", shell(account), shell(u.Name))
		fmt.Fprintf(&b, " \\\n  --allow-pub %s", shell(strings.Join(p.Publish, ",")))
		fmt.Fprintf(&b, " \\\n  --allow-sub %s", shell(strings.Join(p.Subscribe, ",")))
		if p.Responses > 0 {
			fmt.Fprintf(&b, " \\\n  --allow-pub-response=%d --response-ttl %s", p.Responses, ResponseTime)
		}
		b.WriteString("\n")
	}
	return b.String(), nil
}

func shell(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// Claims are what a user's JWT says, for the user's public key. Returns the
// mistakes of the user, joined.
func (u User) Claims(publicKey string) (*jwt.UserClaims, error) {
	if err := u.Validate(); err != nil {
		return nil, err
	}
	if !nkeys.IsValidPublicUserKey(publicKey) {
		return nil, &jetstream.InvalidError{Field: "public key", Value: publicKey, Reason: "is not a user's public NKey"}
	}
	p := u.Permissions()
	c := jwt.NewUserClaims(publicKey)
	c.Name = u.Name
	c.Permissions = jwt.Permissions{Pub: jwt.Permission{Allow: p.Publish}, Sub: jwt.Permission{Allow: p.Subscribe}}
	if p.Responses > 0 {
		c.Resp = &jwt.ResponsePermission{MaxMsgs: p.Responses, Expires: ResponseTime}
	}
	return c, nil
}

// Credentials makes a new key for the user, and the contents of its credentials
// file: [jetstream.ConnectConfig.Creds]. The signer is the account's key or one of
// its signing keys; account is the account's public key, "" when the signer is it.
// They hold for a time, 0 for ever. The servers need [MaxControlLine]. Returns the
// mistakes of the user, joined.
func (u User) Credentials(signer nkeys.KeyPair, account string, holds time.Duration) ([]byte, error) {
	key, err := nkeys.CreateUser()
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	public, err := key.PublicKey()
	if err != nil {
		return nil, err
	}
	c, err := u.Claims(public)
	if err != nil {
		return nil, err
	}
	c.IssuerAccount = account
	if holds > 0 {
		c.Expires = time.Now().Add(holds).Unix()
	}
	token, err := c.Encode(signer)
	if err != nil {
		return nil, fmt.Errorf("sign the JWT of user %q: %w", u.Name, err)
	}
	seed, err := key.Seed()
	if err != nil {
		return nil, err
	}
	return jwt.FormatUserConfig(token, seed)
}
