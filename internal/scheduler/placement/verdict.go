package placement

// verdict is why a node was turned down.
type verdict struct {
	filter  *Filter
	reasons []string
	// unresolvable reports whether taking pods off the node would not help.
	unresolvable bool
	nodes        int // of the class that were
}

const noVerdict int32 = -1

// verdicts numbers the verdicts of a class and counts the nodes of each.
type verdicts struct {
	list   []verdict
	byText map[string]int32
	byLack map[lacking]int32
}

// lacking is what a filter of room found.
type lacking struct {
	filter *Filter
	lack   lack
}

// final returns the verdict that no removal of pods changes.
func (v *verdicts) final(f *Filter, reason string) int32 {
	if i, ok := v.byText[reason]; ok {
		return i
	}
	if v.byText == nil {
		v.byText = map[string]int32{}
	}
	i := int32(len(v.list))
	v.list = append(v.list, verdict{filter: f, reasons: []string{reason}, unresolvable: true})
	v.byText[reason] = i
	return i
}

// lacking returns the verdict of a filter of room.
func (v *verdicts) lacking(f *Filter, l lack, names *scalars) int32 {
	key := lacking{f, l}
	if i, ok := v.byLack[key]; ok {
		return i
	}
	if v.byLack == nil {
		v.byLack = map[lacking]int32{}
	}
	i := int32(len(v.list))
	v.list = append(v.list, verdict{filter: f, reasons: f.words(l, names), unresolvable: l&lackForGood != 0})
	v.byLack[key] = i
	return i
}

func (v *verdicts) count(i int32, delta int) {
	if i != noVerdict {
		v.list[i].nodes += delta
	}
}
