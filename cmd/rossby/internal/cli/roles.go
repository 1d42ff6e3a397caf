package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/rossby-go/rossby/jetstream/roles"
)

// userRow is what a user may do.
type userRow struct {
	User        string   `json:"user"`
	InboxPrefix string   `json:"inboxPrefix"`
	Publish     []string `json:"publish"`
	Subscribe   []string `json:"subscribe"`
	Responses   int      `json:"responses"`
}

// The ways to print roles.
const (
	formatConfig   = "config"
	formatNSC      = "nsc"
	formatSubjects = "subjects"
)

func (a *app) rolesCommand() *cobra.Command {
	var user roles.User
	var role roles.Role
	var account, file string
	format := formatConfig
	c := a.command("roles [KIND [NAME]]", "Prints the least permissions that a module works with",
		"  rossby roles projection accounts --store bank\n"+
			"  rossby roles gateway notifications --store bank --types transfer --format subjects\n"+
			"  rossby roles --file users.json --account BANK --format nsc",
		cobra.MaximumNArgs(2), func(_ context.Context, args []string) error {
			var users []roles.User
			var err error
			switch {
			case (file == "") == (len(args) == 0):
				err = &usageError{"roles: name a kind, or pass --file; kinds are " + strings.Join(kinds(), ", "), nil}
			case file != "":
				users, err = readUsers(file)
			default:
				role.Store = cmp.Or(a.store, os.Getenv(envStore))
				users, err = oneUser(user, role, args)
			}
			if err != nil {
				return err
			}
			return a.printUsers(users, account, format)
		})
	c.Long = "Prints the least permissions that a module works with, as configuration of nats-server, as a script for\n" +
		"nsc, or as subjects. It asks no server. Kinds: " + strings.Join(kinds()[:7], ", ") + ",\n" +
		strings.Join(kinds()[7:], ", ") + ".\n" +
		"docs/security.md says what each may do. --file is a JSON array of roles.User: a program that runs several\n" +
		"modules has several roles."
	f := c.Flags()
	f.StringVar(&file, "file", "", "`file` with users and their roles, JSON")
	f.StringVar(&account, "account", "ROSSBY", "`name` of the account of the server's configuration")
	f.StringVar(&format, "format", formatConfig, "`what` to print: config, nsc or subjects")
	f.StringVar(&user.Name, "name", "", "the user's `name`; that of the module by default")
	f.StringVar(&user.Login, "login", "", "what the server knows the user by, such as `CN=accounts`")
	f.StringVar(&user.NKey, "public-nkey", "", "the user's public `key`, instead of a login")
	f.StringSliceVar(&role.Types, "types", nil, "aggregate `types` that it sends commands to")
	f.StringSliceVar(&role.Views, "views", nil, "`views` that it asks")
	f.BoolVar(&role.Makes, "makes", false, "let it make the streams and buckets that are its own")
	c.ValidArgs = kinds()
	return c
}

func kinds() []string {
	known := roles.Kinds()
	all := make([]string, len(known))
	for i, k := range known {
		all[i] = string(k)
	}
	return all
}

// oneUser is a user with one role.
func oneUser(user roles.User, role roles.Role, args []string) ([]roles.User, error) {
	role.Kind = roles.Kind(args[0])
	if len(args) > 1 {
		role.Name = args[1]
	}
	if known := kinds(); !slices.Contains(known, args[0]) {
		meant := hint(args[0], near(args[0], known), known)
		return nil, &usageError{fmt.Sprintf("roles: %q is no kind%s", args[0], meant), nil}
	}
	if role.Store == "" {
		return nil, &usageError{"roles: say which store with --store", nil}
	}
	user.Name = cmp.Or(user.Name, role.Name, args[0])
	user.Roles = []roles.Role{role}
	return []roles.User{user}, nil
}

// fileUser is a [roles.User] in a file.
type fileUser struct {
	Name     string     `json:"name"`
	Login    string     `json:"login"`
	NKey     string     `json:"nkey"`
	Password string     `json:"password"`
	Roles    []fileRole `json:"roles"`
}

type fileRole struct {
	Kind  roles.Kind `json:"kind"`
	Store string     `json:"store"`
	Name  string     `json:"name"`
	Types []string   `json:"types"`
	Views []string   `json:"views"`
	Makes bool       `json:"makes"`
}

func readUsers(file string) ([]roles.User, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var list []fileUser
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields() // a misspelt one would leave out a permission, or a limit
	if err := dec.Decode(&list); err != nil {
		return nil, &usageError{fmt.Sprintf("%s: is no array of users: %v", file, err), err}
	}
	if len(list) == 0 {
		return nil, &usageError{file + ": has no users", nil}
	}
	users := make([]roles.User, len(list))
	for i, u := range list {
		users[i] = roles.User{Name: u.Name, Login: u.Login, NKey: u.NKey, Password: u.Password}
		for _, r := range u.Roles {
			users[i].Roles = append(users[i].Roles, roles.Role(r))
		}
	}
	return users, nil
}

func (a *app) printUsers(users []roles.User, account, format string) error {
	errs := make([]error, 0, len(users))
	rows := make([]userRow, len(users))
	for i := range users {
		errs = append(errs, users[i].Validate())
		p := users[i].Permissions()
		rows[i] = userRow{users[i].Name, users[i].InboxPrefix(), p.Publish, p.Subscribe, p.Responses}
	}
	if err := errors.Join(errs...); err != nil {
		return &usageError{err.Error(), err}
	}
	var text string
	var err error
	switch format {
	case formatSubjects:
	case formatConfig:
		text, err = roles.ServerConfig(account, users...)
	case formatNSC:
		text, err = roles.NSC(account, users...)
	default:
		return &usageError{fmt.Sprintf("--format %q: is neither config, nsc nor subjects", format), nil}
	}
	if err != nil {
		return &usageError{err.Error(), err}
	}
	return a.show(rows, func(w io.Writer) {
		if text != "" {
			_, _ = fmt.Fprint(w, text)
			return
		}
		for _, r := range rows {
			fields(w, field{"User", r.User}, field{"Inbox prefix", r.InboxPrefix},
				field{"Answers requests", strconv.Itoa(r.Responses)})
			for _, s := range r.Publish {
				_, _ = fmt.Fprintln(w, "publish    "+s)
			}
			for _, s := range r.Subscribe {
				_, _ = fmt.Fprintln(w, "subscribe  "+s)
			}
		}
	})
}
