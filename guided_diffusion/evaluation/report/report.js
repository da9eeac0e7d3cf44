const view = document.getElementById('view'), slider = document.getElementById('scale')
const curve = document.getElementById('curve'), shown = document.getElementById('shown')
const groups = [...view.querySelectorAll('section')]
function show() {
  const figures = [...groups[curve.selectedIndex].querySelectorAll('figure')]
  slider.max = figures.length - 1
  const index = Number(slider.value)
  groups.forEach((group, i) => { group.hidden = i !== curve.selectedIndex })
  figures.forEach((figure, i) => { figure.hidden = i !== index })
  shown.textContent = figures[index].dataset.scale
  slider.setAttribute('aria-valuetext', figures[index].dataset.scale)
}
view.querySelectorAll('h3').forEach(heading => { heading.hidden = true })
view.querySelector('.controls').hidden = false
slider.addEventListener('input', show)
curve.addEventListener('change', show)
show()
