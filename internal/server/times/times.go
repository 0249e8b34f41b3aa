// Package times makes the times in objects what is stored of them.
//
// What flows through it: the front door hands over each object that it is about to store. What must stay true: an object that a writer in
// this process keeps is not changed below its first level (TestCut, TestTimesAreReadAsTheyAreStored in internal/server/registry).
package times

import (
	"reflect"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/knarr-io/knarr/internal/api"
)

// Cutter cuts the times in objects to what is stored of them: seconds, or microseconds in a MicroTime, and no reading of the
// monotonic clock. What a writer in this process has written is read from the copy as every other server and every later
// start reads it from etcd; a writer that compares finds that nothing has changed.
//
// An object belongs to its writer no deeper than its first level, so what is below is copied where it has to be changed. Which fields
// of a type can lead to a time is found out once: most of an object is never looked at.
type Cutter struct {
	types sync.Map // reflect.Type of a struct -> *timePlan; nil where there is no time in it
}

// timePlan leads to the times in values of one type.
type timePlan struct {
	kind   timeKind
	fields []timeField // of a struct
	elem   *timePlan   // of a slice or pointer
}

type timeKind int

const (
	aTime timeKind = iota
	aMicroTime
	aStruct
	aSlice
	aPointer
)

type timeField struct {
	index int
	plan  *timePlan
}

// Cut cuts the times in obj, a pointer to a struct.
func (t *Cutter) Cut(obj api.Object) {
	v := reflect.ValueOf(obj)
	if v.Kind() != reflect.Pointer || v.Elem().Kind() != reflect.Struct {
		return
	}
	v = v.Elem()
	known, ok := t.types.Load(v.Type())
	if !ok {
		known, _ = t.types.LoadOrStore(v.Type(), planTimes(v.Type(), nil))
	}
	if p := known.(*timePlan); p != nil && p.long(v) {
		p.cut(v)
	}
}

// planTimes returns how to find the times in values of type t, or nil where there are none. within are the types around it: none of the API's
// types that contain themselves has times.
func planTimes(t reflect.Type, within []reflect.Type) *timePlan {
	switch {
	case t == reflect.TypeFor[metav1.Time]():
		return &timePlan{kind: aTime}
	case t == reflect.TypeFor[metav1.MicroTime]():
		return &timePlan{kind: aMicroTime}
	case slices.Contains(within, t):
		return nil
	}
	switch t.Kind() {
	case reflect.Struct:
		p := &timePlan{kind: aStruct}
		for i := range t.NumField() {
			if f := t.Field(i); f.IsExported() {
				if sub := planTimes(f.Type, append(within, t)); sub != nil {
					p.fields = append(p.fields, timeField{i, sub})
				}
			}
		}
		if p.fields != nil {
			return p
		}
	case reflect.Slice, reflect.Pointer:
		if elem := planTimes(t.Elem(), within); elem != nil {
			return &timePlan{kind: map[reflect.Kind]timeKind{reflect.Slice: aSlice, reflect.Pointer: aPointer}[t.Kind()], elem: elem}
		}
	}
	return nil
}

// long tells whether a time in v is longer than what is stored.
func (p *timePlan) long(v reflect.Value) bool {
	switch p.kind {
	case aTime, aMicroTime:
		t := timeIn(v)
		return *t != p.short(*t)
	case aStruct:
		for _, f := range p.fields {
			if f.plan.long(v.Field(f.index)) {
				return true
			}
		}
	case aSlice:
		for i := range v.Len() {
			if p.elem.long(v.Index(i)) {
				return true
			}
		}
	case aPointer:
		return !v.IsNil() && p.elem.long(v.Elem())
	}
	return false
}

// cut cuts the times in v, which may be changed, but not what it refers to.
func (p *timePlan) cut(v reflect.Value) {
	switch p.kind {
	case aTime, aMicroTime:
		t := timeIn(v)
		*t = p.short(*t)
	case aStruct:
		for _, f := range p.fields {
			f.plan.cut(v.Field(f.index))
		}
	case aSlice:
		if p.long(v) {
			own := reflect.MakeSlice(v.Type(), v.Len(), v.Len())
			reflect.Copy(own, v)
			for i := range own.Len() {
				p.elem.cut(own.Index(i))
			}
			v.Set(own)
		}
	case aPointer:
		if p.long(v) {
			own := reflect.New(v.Type().Elem())
			own.Elem().Set(v.Elem())
			p.elem.cut(own.Elem())
			v.Set(own)
		}
	}
}

// timeIn returns the time in a metav1.Time or metav1.MicroTime.
func timeIn(v reflect.Value) *time.Time {
	switch t := v.Addr().Interface().(type) {
	case *metav1.Time:
		return &t.Time
	default:
		return &t.(*metav1.MicroTime).Time
	}
}

// short returns t as it is read from the wire. A time that has nothing to lose stays as it is, in whatever zone.
func (p *timePlan) short(t time.Time) time.Time {
	unit := time.Second
	if p.kind == aMicroTime {
		unit = time.Microsecond
	}
	if t.Nanosecond()%int(unit) == 0 && t == t.Round(0) {
		return t
	}
	return t.Truncate(unit).Round(0).Local()
}
