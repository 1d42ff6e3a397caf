// Package projection keeps views of a store's events, and answers questions from
// them.
//
// # Definition
//
// A [Definition] says how events become values under keys. In a keyed view
// events name the keys that they touch, the aggregate's id unless [Keys] says
// otherwise, and a fold sees that key only:
//
//	var Accounts = projection.NewKeyed("accounts",
//		projection.On(account.Events, func(v *AccountView, e account.Credited, m jetstream.Meta) {
//			v.Cents += e.Cents
//		}),
//		projection.OnRow(account.Events, func(row *projection.Row[AccountView], e account.Deleted, m jetstream.Meta) error {
//			row.Delete()
//			return nil
//		}),
//	)
//
// In a lookup view a fold reads and writes any key, and every commit's changes
// become visible together: [NewLookup], [OnTx]. Folds are pure, since they may run
// again. Values are JSON, for people and other languages read them.
//
// [Definition.Index] lets values of either kind be found by something else than
// their keys: an owner, a status, a time, an amount. [Reader.Find] asks.
//
// # Updater
//
// An [Updater] follows the store and writes the view, each event exactly once,
// whatever crashes. Start as many instances as you like: one owns the view, the
// others take over when it stops ([UpdaterConfig.LeaseTTL]). An event that cannot
// be folded stops the view before it, loudly, unless [UpdaterConfig.OnError] says
// otherwise. Raise [Definition.Version] to have the view rebuilt beside the one
// that is read, and put in its place when it has caught up.
//
// # Other databases
//
// A [SinkUpdater] keeps a view in a database of one's own, such as PostgreSQL: a
// [Sink] takes rows and position in one transaction. examples/sqlview has two.
//
// # Reader
//
// A [Reader] gets, lists and watches entries from the view's bucket. Every read is
// one snapshot, never older than one before, and with [AtLeast] not older than the
// caller's own write. A [QueryService] answers the same over NATS to those who may
// not read the bucket; [QueryClient] asks it.
//
// # What is stored
//
// A view is the KV bucket <store>_<view>, made with atomic batches allowed: don't
// update it with the nats command's kv functions, which forbid them. Reading with
// them is fine: nats kv get bank_accounts 1.a1.
//
//   - <generation>.<key> is a value, plain JSON. Its header Rossby-Sequence names
//     the stream sequence that it reflects; so does a deletion's marker. Bytes of
//     keys outside of [-/_.a-zA-Z0-9], and dots at either end or side by side, are
//     written as "=" and two hexadecimal digits. The header Rossby-Index lists what
//     an index finds it by.
//   - _index.<generation>.<index>.<part>.<index value>.=.<key> is an entry of an
//     index, without a value.
//   - _rossby.<generation> is the checkpoint: position, owner, fence, state.
//   - _rossby.view lists the generations and says which one is read.
//
// The durable consumer <view> on the store's stream shows place and lag; it
// carries no truth and may be deleted.
package projection
