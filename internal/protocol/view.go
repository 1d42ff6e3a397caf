package protocol

// ViewPointer is where a view's bucket says which generation is read: every view has
// it, and no other bucket.
func ViewPointer(store, view string) string { return "$KV." + store + "_" + view + "._rossby.view" }
