package api

// Packing is how objects of a resource are made small in the store's table: what is large in them and seldom looked at is packed. The front door packs what
// comes in and those who send objects to clients unpack them; in-process readers see packed ones.
type Packing struct {
	// Pack packs an object, in place, if it is not packed. It replaces what the object's slices and maps hold, which may be shared.
	Pack func(obj Object) error
	// Whole returns an object that is not packed: obj itself where it is none.
	Whole func(obj Object) (Object, error)
	// Outline returns an object in which what is packed is only named, for those who ask whether it has changed.
	Outline func(obj Object) (Object, error)
	// JSON returns the JSON of Whole's object, without making that.
	JSON func(obj Object) ([]byte, error)
}

// Pack makes obj as the table of r holds objects, in place.
func (r *Resource) Pack(obj Object) error {
	if r.Packing == nil {
		return nil
	}
	return r.Packing.Pack(obj)
}

// Whole returns obj as clients see it.
func (r *Resource) Whole(obj Object) (Object, error) {
	if r.Packing == nil || obj == nil {
		return obj, nil
	}
	return r.Packing.Whole(obj)
}

// Outline returns obj with what is packed only named.
func (r *Resource) Outline(obj Object) (Object, error) {
	if r.Packing == nil || obj == nil {
		return obj, nil
	}
	return r.Packing.Outline(obj)
}
