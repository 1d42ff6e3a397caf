// Package roles gives each kind of module the least permissions it works with, as
// configuration of nats-server and as JWTs.
//
//	updater := roles.User{Name: "accounts", Roles: []roles.Role{
//		{Kind: roles.Projection, Store: "bank", Name: "accounts"},
//	}}
//	text, err := roles.ServerConfig("BANK", updater)
//
// A [Role] is what one module may do, a [User] is what a program logs in as: it has
// the roles of the modules that it runs. A program connects with
// [User.InboxPrefix] as [jetstream.ConnectConfig.InboxPrefix], which is what keeps
// others from reading its replies.
//
// What the server does not permit ends what asked for it with a
// [*jetstream.PermissionError]. docs/security.md says what roles cannot do.
package roles
