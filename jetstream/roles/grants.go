package roles

import "slices"

// grants collects permissions. Each method is one thing that modules do; docs/wire.md
// and docs/followers.md have the subjects.
type grants struct {
	pub, sub []string
	// services is how many services the user has.
	services int
}

func (g *grants) publish(subjects ...string)   { g.pub = append(g.pub, subjects...) }
func (g *grants) subscribe(subjects ...string) { g.sub = append(g.sub, subjects...) }

func (g *grants) role(r Role) {
	s := r.Store
	switch r.Kind {
	case Command:
		g.command(s, r.Name, r.Makes)
	case Client:
		g.commands(s, r.Types)
		for _, v := range r.Views {
			g.publish(s + ".query." + v + ".>")
		}
	case Projection:
		g.projection(s, r.Name, r.Makes)
	case ProjectionAdmin:
		g.projectionAdmin(s, r.Name)
	case Query:
		g.view(s, r.Name)
		g.service(s+"-query", s+".query."+r.Name+".>")
	case Gateway:
		g.follower(s, s, r.Name, r.Makes)
		g.history(s)
		g.bucket("KV_"+s+"__deliveries", "$KV."+s+"__deliveries."+r.Name+".*", r.Makes)
		g.commands(s, r.Types)
	case Reactor:
		g.reactor(s, r.Name, r.Types, r.Makes)
	case Saga:
		g.reactor(s, r.Name, slices.Concat([]string{r.Name}, r.Types), r.Makes)
		g.command(s, r.Name, r.Makes)
		g.timers(s, []string{r.Name}, r.Makes)
		g.bucket("KV_"+s+"__sagas", "$KV."+s+"__sagas."+r.Name+".*", r.Makes)
		g.publish("$JS.API.STREAM.PURGE.KV_"+s+"__sagas", "$JS.API.DIRECT.GET.KV_"+s+"__sagas")
	case Timers:
		g.timers(s, r.Types, r.Makes)
	case FollowersAdmin, FollowersWatcher:
		g.followers(s, r.Name, r.Kind == FollowersAdmin)
	case Console:
		g.console(s, r.Views)
	case Archive:
		g.attach(s)
		g.history(s)
		g.scan(s)
	case Import:
		g.attach(s)
		g.history(s)
		g.publish(s + ".event.>")
		g.makeStore(s, r.Makes)
	case Operator:
		g.attach(s)
		g.history(s)
		g.scan(s)
		g.makeStore(s, true)
		g.publish(s+".event._store.0.genesis", "$JS.API.STREAM.UPDATE."+s)
	}
}

// attach opens a store that is there, and asks its leader.
func (g *grants) attach(s string) {
	g.publish("$JS.API.INFO", "$JS.API.STREAM.INFO."+s, "$JS.API.STREAM.MSG.GET."+s)
}

// history reads from all replicas. It cannot be narrowed: which messages are wanted
// stands in the request's body.
func (g *grants) history(s string) {
	g.publish("$JS.API.DIRECT.GET."+s, "$JS.API.DIRECT.GET."+s+".>")
}

// scan reads long stretches through consumers that go away.
func (g *grants) scan(s string) {
	g.publish("$JS.API.CONSUMER.CREATE."+s+".*", "$JS.API.CONSUMER.CREATE."+s+".*.>",
		"$JS.API.CONSUMER.MSG.NEXT."+s+".*", "$JS.API.CONSUMER.DELETE."+s+".*")
}

func (g *grants) make(stream string, makes bool) {
	if makes {
		g.publish("$JS.API.STREAM.CREATE." + stream)
	}
}

// makeStore makes the store, and looks first whether anything is left of an old one.
func (g *grants) makeStore(store string, makes bool) {
	g.make(store, makes)
	if makes {
		g.publish("$JS.API.STREAM.NAMES")
		for _, bucket := range []string{"followers", "state", "deliveries"} {
			g.publish("$JS.API.STREAM.INFO.KV_" + store + "__" + bucket)
		}
		g.publish("$JS.API.STREAM.INFO." + store + "__timers")
	}
}

// bucket writes to a module's part of a bucket, and asks its leader.
func (g *grants) bucket(stream, keys string, makes bool) {
	g.publish("$JS.API.STREAM.INFO."+stream, "$JS.API.STREAM.MSG.GET."+stream, keys)
	g.make(stream, makes)
}

// service answers requests.
func (g *grants) service(name string, subjects ...string) {
	g.subscribe(subjects...)
	g.discovered(name)
	g.services++
}

// discovered answers who asks what services there are.
func (g *grants) discovered(name string) {
	g.subscribe("$SRV.*", "$SRV.*."+name, "$SRV.*."+name+".*")
}

// commands sends commands.
func (g *grants) commands(s string, types []string) {
	for _, t := range types {
		g.publish(s + ".command." + t + ".*.*")
	}
}

func (g *grants) command(s, typ string, makes bool) {
	g.attach(s)
	g.history(s)
	state := "KV_" + s + "__state"
	all := typ
	if typ == "" {
		all = "*"
	}
	// Unique keys stand beside the aggregates, and one secret that hashes them.
	g.publish(s+".event."+all+".*.*", s+".event._key.*.*", s+".event._store.*.keys")
	g.bucket(state, "$KV."+s+"__state."+all+".>", makes)
	g.publish("$JS.API.DIRECT.GET." + state + ".$KV." + s + "__state." + all + ".>")
	g.bucket("KV_"+s+"__receipts", "$KV."+s+"__receipts.*", makes)
	g.makeStore(s, makes)
	if makes {
		g.publish(s + ".event._store.0.genesis")
	}
	name := s + "-" + typ
	if typ == "" {
		name = "*" // no wildcard is part of a token
		g.services += AllTypes - 1
	}
	g.service(name, s+".command."+all+".>")
}

// cursor follows a stream through a durable consumer.
func (g *grants) cursor(stream, durable string) {
	g.publish("$JS.API.CONSUMER.CREATE."+stream+"."+durable, "$JS.API.CONSUMER.CREATE."+stream+"."+durable+".>",
		"$JS.API.CONSUMER.RESET."+stream+"."+durable, "$JS.API.CONSUMER.MSG.NEXT."+stream+"."+durable,
		"$JS.API.CONSUMER.INFO."+stream+"."+durable)
}

// follower is what gateways, reactors and timers have in common.
func (g *grants) follower(s, stream, name string, makes bool) {
	g.attach(s)
	g.publish("$JS.API.STREAM.INFO."+stream, "$JS.API.STREAM.MSG.GET."+stream, "$JS.API.DIRECT.GET."+stream)
	g.cursor(stream, name)
	g.bucket("KV_"+s+"__followers", "$KV."+s+"__followers."+name, makes)
	hint := "_ROSSBY.hint." + s + "__followers." + name
	g.publish(hint)
	g.subscribe(hint)
	g.service(s+"-follower-"+name, s+".follower."+name+".*")
	g.publish("$JS.API.STREAM.INFO."+s+"__actions", s+".action."+name)
	g.make(s+"__actions", makes)
}

func (g *grants) reactor(s, name string, types []string, makes bool) {
	g.follower(s, s, name, makes)
	g.history(s)
	g.commands(s, types)
	if len(types) == 0 {
		return
	}
	g.publish("$JS.API.STREAM.MSG.GET."+s+"__timers", "$JS.API.STREAM.MSG.DELETE."+s+"__timers")
	for _, t := range types {
		g.publish(s + ".timer.set." + t + ".*.*")
	}
}

func (g *grants) timers(s string, types []string, makes bool) {
	stream := s + "__timers"
	for _, t := range types {
		g.follower(s, stream, "_timers-"+t, makes)
	}
	g.commands(s, types)
	g.publish("$JS.API.STREAM.PURGE." + stream)
	g.make(stream, makes)
}

func (g *grants) followers(s, name string, admin bool) {
	bucket := "KV_" + s + "__followers"
	all := name
	if name == "" {
		all = "*"
	}
	g.attach(s)
	g.history(s)
	g.publish("$JS.API.CONSUMER.INFO."+s+"."+all, "$JS.API.CONSUMER.INFO."+s+"__timers."+all,
		"$JS.API.STREAM.INFO."+s+"__timers", "$JS.API.STREAM.INFO."+bucket, "$JS.API.STREAM.MSG.GET."+bucket,
		"$JS.API.CONSUMER.CREATE."+bucket+".>", "$JS.API.CONSUMER.DELETE."+bucket+".>",
		"$JS.API.STREAM.MSG.GET."+s+"__actions")
	if admin {
		g.publish(s + ".follower." + all + ".*")
	} else {
		g.publish(s + ".follower." + all + ".status")
	}
}

// console reads everything. It finds views by the names of the account's streams, and
// command services by asking services what they are.
func (g *grants) console(s string, views []string) {
	g.followers(s, "", false)
	g.scan(s)
	g.publish("$JS.API.STREAM.NAMES", "$SRV.INFO", "$SRV.INFO.*")
	for _, stream := range []string{s + "__timers", "KV_" + s + "__sagas"} {
		g.publish("$JS.API.STREAM.INFO."+stream, "$JS.API.STREAM.MSG.GET."+stream, "$JS.API.DIRECT.GET."+stream)
	}
	for _, v := range views {
		g.view(s, v)
	}
}

// view reads a view.
func (g *grants) view(s, view string) {
	stream, keys := viewNames(s, view)
	g.publish("$JS.API.STREAM.INFO."+stream, "$JS.API.STREAM.MSG.GET."+stream, "$JS.API.DIRECT.GET."+stream,
		"$JS.API.DIRECT.GET."+stream+".>")
	g.subscribe(keys + "_rossby.>")
}

func viewNames(s, view string) (stream, keys string) {
	bucket := s + "_" + view
	return "KV_" + bucket, "$KV." + bucket + "."
}

func (g *grants) projection(s, view string, makes bool) {
	stream, keys := viewNames(s, view)
	g.attach(s)
	g.history(s) // one aggregate's keys can be rebuilt alone
	g.view(s, view)
	for _, durable := range []string{view, view + "_build", view + "_sink"} { // the last is that of a database
		g.cursor(s, durable)
		g.publish("$JS.API.CONSUMER.DELETE." + s + "." + durable)
	}
	g.bucket(stream, keys+">", makes)
	if makes {
		g.publish("$JS.API.STREAM.UPDATE." + stream) // a view that gets its first index
	}
	g.publish(s + ".hint." + view)
	g.subscribe(s + ".hint." + view)
}

// projectionAdmin changes what a view's own keys say, and removes generations.
func (g *grants) projectionAdmin(s, view string) {
	stream, keys := viewNames(s, view)
	g.view(s, view)
	g.attach(s)
	g.publish("$JS.API.STREAM.PURGE."+stream, keys+"_rossby.>", s+".hint."+view)
	for _, durable := range []string{view, view + "_build", view + "_sink"} { // the last is that of a database
		g.publish("$JS.API.CONSUMER.INFO." + s + "." + durable)
	}
}
