// Package cli is the command line rossby: each command a function of its input and
// output, so that tests run it as a person does.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
)

// Env is what the program sees of the world beside its arguments and environment
// variables.
type Env struct {
	In       io.Reader
	Out, Err io.Writer
	// InTerminal tells that a person can answer on In, ErrTerminal that one watches
	// Err.
	InTerminal, ErrTerminal bool
}

// app is one run of the program.
type app struct {
	env   Env
	conn  connFlags
	store string
	json  bool
	yes   bool
}

// Run runs a command line and returns the exit code.
func Run(ctx context.Context, args []string, env Env) int {
	env.Err = &shared{w: env.Err}
	a := &app{env: env}
	root := a.root() //nolint:contextcheck // commands get the context that ExecuteContext is given
	if len(args) == 1 && args[0] == introspectFlag {
		return a.exit(ctx, introspect(root, env.Out))
	}
	root.SetArgs(args)
	return a.exit(ctx, root.ExecuteContext(ctx))
}

func (a *app) exit(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	code := exitCode(ctx, err)
	if code == exitInterrupted {
		_, _ = fmt.Fprintln(a.env.Err, "rossby: interrupted")
		return code
	}
	if !errors.Is(err, errReported) {
		_, _ = fmt.Fprintf(a.env.Err, "rossby: %v\n", err)
	}
	return code
}

func (a *app) root() *cobra.Command {
	root := a.group("rossby", "Looks after event stores, views and followers",
		"  rossby store ls\n  rossby events tail --store bank",
		a.storeCommands(), a.eventsCommands(), a.aggregateCommands(), a.commandCommands(), a.viewCommands(),
		a.followerCommands(), a.parkedCommands(), a.rolesCommand(), a.benchCommand(), a.newCommand(),
	)
	root.Long = root.Short + ".\n\n" + exitCodes
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetFlagErrorFunc(flagError)
	f := root.PersistentFlags()
	f.StringVar(&a.store, "store", "", "the `store`; the only one when there is one ($ROSSBY_STORE)")
	f.BoolVar(&a.json, "json", false, "print JSON")
	a.conn.add(f)
	_ = root.RegisterFlagCompletionFunc("store", a.completeStores) // fails for an unknown flag only
	root.SetIn(a.env.In)
	root.SetOut(a.env.Out) // the completion command asks for it when it is made
	root.SetErr(a.env.Err)
	root.InitDefaultCompletionCmd()
	root.InitDefaultHelpCmd()
	return root
}

// group is a command that only holds others.
func (a *app) group(use, short, example string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use: use, Short: short, Example: example, Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			where := ""
			if c.HasParent() {
				where = useLine(c) + ": "
			}
			return &usageError{fmt.Sprintf("%sthere is no command %q%s", where, args[0], hint(
				args[0], c.SuggestionsFor(args[0]), names(c.Commands()))), nil}
		},
	}
	c.AddCommand(commands...)
	c.SuggestionsMinimumDistance = 2
	return c
}

func names(commands []*cobra.Command) []string {
	var all []string
	for _, c := range commands {
		if c.IsAvailableCommand() {
			all = append(all, c.Name())
		}
	}
	return all
}

// command is one that does something. Its example is not optional.
func (a *app) command(
	use, short, example string, args cobra.PositionalArgs, run func(ctx context.Context, args []string) error,
) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Example: example, DisableFlagsInUseLine: true,
		Args: func(c *cobra.Command, given []string) error {
			if err := args(c, given); err != nil {
				return &usageError{fmt.Sprintf("%v; usage: rossby %s", err, useLine(c)), err}
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error { return run(c.Context(), args) },
	}
}

// useLine is the command with its arguments, without the program's name.
func useLine(c *cobra.Command) string {
	line := c.Use
	for p := c.Parent(); p != nil && p.HasParent(); p = p.Parent() {
		line = p.Name() + " " + line
	}
	return line
}

// asks lets a command ask before it does what cannot be undone.
func (a *app) asks(c *cobra.Command) *cobra.Command {
	c.Flags().BoolVar(&a.yes, "yes", false, "do not ask")
	return c
}

// short bounds what is one question and its answer.
func (a *app) short(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, a.conn.timeout)
}

// completeTimeout bounds how long a shell waits for completions.
const completeTimeout = time.Second
