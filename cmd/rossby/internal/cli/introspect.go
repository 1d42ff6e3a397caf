package cli

import (
	"encoding/json"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// introspectFlag is how `nats plugins register` asks a program what it does. The
// answer is the model of the library fisk, which the nats command is built with.
const introspectFlag = "--fisk-introspect"

type (
	fiskFlag struct {
		Name       string `json:"name"`
		Help       string `json:"help"`
		Holder     string `json:"place_holder,omitempty"`
		Boolean    bool   `json:"boolean"`
		Cumulative bool   `json:"cumulative"`
	}
	fiskArg struct {
		Name       string `json:"name"`
		Help       string `json:"help"`
		Cumulative bool   `json:"cumulative"`
	}
	fiskCommand struct {
		Name     string        `json:"name"`
		Help     string        `json:"help"`
		HelpLong string        `json:"help_long,omitempty"`
		Args     []fiskArg     `json:"args,omitempty"`
		Flags    []fiskFlag    `json:"flags,omitempty"`
		Commands []fiskCommand `json:"commands,omitempty"`
	}
)

// introspect writes the model of the commands. Two things are as they are because of
// what fisk 0.9 does with it: it passes several arguments on in any order, so each
// command has one that holds all of them; and it forgets the flags of the program
// itself, so each command has those, too.
func introspect(root *cobra.Command, w io.Writer) error {
	model := fiskOf(root)
	model.Flags = nil
	return json.NewEncoder(w).Encode(model)
}

func fiskOf(c *cobra.Command) fiskCommand {
	m := fiskCommand{Name: c.Name(), Help: c.Short}
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() && sub.Name() != "help" && sub.Name() != "completion" {
			m.Commands = append(m.Commands, fiskOf(sub))
		}
	}
	if m.Commands != nil {
		return m
	}
	m.HelpLong = "Usage: rossby " + useLine(c) + "\n\n" + c.Long + "\n\nExamples:\n" + c.Example
	m.Args = []fiskArg{{Name: "args", Help: useLine(c), Cumulative: true}}
	add := func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		holder, help := pflag.UnquoteUsage(f)
		m.Flags = append(m.Flags, fiskFlag{
			Name: f.Name, Help: help, Holder: holder, Boolean: f.Value.Type() == "bool",
			Cumulative: f.Value.Type() == "stringSlice" || f.Value.Type() == "stringToString",
		})
	}
	c.NonInheritedFlags().VisitAll(add)
	c.InheritedFlags().VisitAll(add)
	return m
}
