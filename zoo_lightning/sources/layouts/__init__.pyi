from .layout import Layout as Layout
from .translating import Translated as Translated
from .translating import translate as translate
