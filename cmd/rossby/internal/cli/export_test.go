package cli

import "github.com/spf13/cobra"

// Root is the tree of commands.
func Root(env Env) *cobra.Command { return (&app{env: env}).root() }
