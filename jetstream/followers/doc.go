// Package followers is the administration of whatever follows a store's events:
// reactors, gateways, timers. It shows where each is and what it waits for, and lets
// people pause, resume, retry, discard and replay, from any process that may talk to
// the store's NATS.
//
//	admin := followers.New(store)
//	all, err := admin.List(ctx)
//	groups, err := admin.Parked(ctx, "notifications")
//	n, err := admin.Retry(ctx, "notifications", followers.Selection{Group: groups[0].ID}, "ada")
//
// The process that owns the follower does what is asked and records it, so that it
// outlives that process: a pause holds for the next owner, too. Where none runs the
// answer is [ErrNotRunning]; [Admin.Status] and [Admin.Parked] answer all the same,
// from what is recorded.
//
// # Permissions
//
// Reading needs what a query of the store needs and the bucket <store>__followers.
// Asking publishes to <store>.follower.<name>.<what>: allow that to those who may,
// such as bank.follower.> or bank.follower.*.status.
package followers
