// Package jetstream is Rossby's event store on NATS JetStream.
//
// A store is one stream, one bounded context, and the boundary of trust. It holds
// commits: a commit is what one decision stored about one aggregate, all of its
// events in one message, atomic on every server. The other packages of Rossby are
// built on this one; it can be used alone.
//
// # Opening
//
// [Connect] makes a connection fit for appends, [Open] makes or opens a store and
// [Attach] opens one that somebody else makes. Both compare the live stream with
// what keeps commits safe and refuse, with a [*SettingsError] for each field, what
// would lose data.
//
//	nc, err := jetstream.Connect(ctx, jetstream.ConnectConfig{})
//	store, err := jetstream.Open(ctx, nc, jetstream.Config{Name: "bank", Replicas: 3})
//
// # Events
//
// A [Schema] lists an aggregate type's events under the names they are stored
// with. Older versions are upcast whenever they are read, see [Upcast],
// [UpcastMany], [Renamed], [Retired] and [Removed]; docs/evolution.md is the guide,
// and package schematest keeps it true. A [Decoder] turns commits into [Recorded] events,
// each with its [Meta]: id, version, position, time and who asked for it.
//
// # Appending
//
// Every [Write] names the last commit that its writer knows, as a [Head]. If that
// is no longer the last one, [Store.Append] returns a [*ConflictError] and nothing
// is stored. Append sends a commit again until its outcome is known; if its
// context ends before, the error says whether the commit surely is not stored
// ([ErrUnavailable]) or may be ([ErrUnknownOutcome]).
//
//	head, err = store.Append(ctx, jetstream.Write{
//		Type: "account", ID: "a1", After: head,
//		Decisions: []jetstream.Decision{{CommandID: id, Events: events}},
//	})
//
// A writer that has not loaded the aggregate sets [Write.Expect] instead: [Any],
// [Exists], [NoStream], [AtVersion] or [AtPosition]. [Store.AppendAll] stores the
// commits of several aggregates, all or none; [Write.Reserve] takes a unique key, such
// as an e-mail address, together with the events. [Store.Settle] and [Store.Abandon]
// decide an append that gave up undecided. docs/appends.md is the guide.
//
// # Reading
//
// [Store.Last] is one aggregate's last commit, with its state if that is small:
// one request, however long the history. [Store.History] and [Store.Scan] yield
// the commits of one aggregate, or of all. They are complete: on a replicated
// stream a server may answer that does not have the newest commits yet, so a read
// knows the commit that it has to reach, and ends with that one or with
// [ErrIncomplete].
//
// A [Position] is a place in the store, to be passed on as text and waited for.
//
// # The format
//
// What is stored is specified in docs/format.md, for other languages and for
// ever.
package jetstream
